"""The certificate of a bundle, for the weights in it."""

from pathlib import Path

from slimnet.bundle.blueprint import read_weights
from slimnet.bundle.manifest import CERTIFICATE, WEIGHTS
from slimnet.errors import BundleError, ChangedBundleError
from slimnet.modules.digest import digest_of
from slimnet.storage.folder_names import REMAKE
from slimnet.storage.records import read_json
from slimnet.surgery.certificate_data import Certificate


def read_certificate(folder: Path) -> Certificate:
    """The certificate of a bundle, as it is for the weights in it.

    Raises:
        BundleError: the file holds something else, or a certificate with which nothing would have been saved.
        ChangedBundleError: it does not say that the weights are others than those it was measured on.
    """
    certificate = stored_certificate(folder / CERTIFICATE)
    current = certificate.for_weights(digest_of(read_weights(folder / WEIGHTS).items()))
    if current.trained_since and not certificate.trained_since:
        raise ChangedBundleError(
            f"{folder / WEIGHTS} holds other weights than those that {CERTIFICATE} was measured on; {REMAKE}"
        )
    return current


def stored_certificate(path: Path) -> Certificate:
    """The certificate in a file.

    Raises:
        BundleError: as `read_certificate`.
    """
    where, again = f"{path} holds no certificate", REMAKE
    certificate = Certificate.from_data(read_json(path, BundleError, again), where, BundleError)
    if not certificate.was_within_tolerance:
        raise BundleError(f"{path} says that the network is not right: {certificate}")
    return certificate

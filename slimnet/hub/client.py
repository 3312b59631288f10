"""The client of the Hugging Face Hub: its import, without its bars and warnings, and its errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from slimnet.errors import HubError, SlimnetError, UsageError, short_reason
from slimnet.hub.address import Address
from slimnet.version import __version__, install_command

INSTALL = install_command("hub")


def load_client() -> ModuleType:
    """Import the client.

    Raises:
        UsageError: it is not installed (it is an optional extra), or does not load.
    """
    try:
        import huggingface_hub.errors
    except Exception as error:  # a library that is missing or does not fit raises errors of all kinds
        if isinstance(error, ModuleNotFoundError) and error.name == "huggingface_hub":
            raise UsageError(f"huggingface_hub is not installed, which reads and writes hubs; {INSTALL}") from error
        raise UsageError(
            f"huggingface_hub does not load here: {short_reason(error)}; reinstall it: {INSTALL}"
        ) from error
    return huggingface_hub


@contextmanager
def hub_for(address: Address, token: str | None = None) -> Iterator[Any]:
    """A `huggingface_hub.HfApi` in whose context errors are in one line about `address`, and nothing is printed.

    Server and credentials are the client's own: HF_ENDPOINT, HF_TOKEN, or what `hf auth login` stored.

    Raises:
        UsageError: the client is missing, there is no such repository or revision, or it is not open to the caller.
        HubError: the hub cannot be reached, or fails.
    """
    client = load_client()
    with _silent(client):
        try:
            yield client.HfApi(token=token, library_name="slimnet", library_version=__version__)
        except SlimnetError:
            raise
        # The client's errors, those of its HTTP and transfer libraries, and those of the file system below its cache.
        except (OSError, ValueError, RuntimeError, client.errors.HTTPError) as error:
            raise _in_one_line(address, error, client.errors) from error


def _in_one_line(address: Address, error: Exception, errors: Any) -> SlimnetError:
    repository = Address(address.repository)
    if isinstance(error, errors.GatedRepoError):
        return UsageError(f"{repository} is open only to those whom its owner lets in; ask on its page for access")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UsageError(
            f"{repository}: there is no such repository, or it is not open to you; check its name, or log in with "
            "hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"{repository} has no revision {address.revision}; name a branch, a tag or a commit")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return UsageError(f"{repository} cannot be written with these credentials; log in with hf auth login")
    if status is not None:
        return HubError(f"{repository}: the hub refused the request ({short_reason(error)})")
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError | errors.HTTPError):
        return HubError(
            f"{address}: the hub cannot be reached, and this is not in the cache; check the connection, HF_ENDPOINT "
            "and HF_HUB_OFFLINE"
        )
    return HubError(f"{address}: {short_reason(error.__cause__ or error)}")


@contextmanager
def _silent(client: ModuleType) -> Iterator[None]:
    """Keep the client's progress bars and warnings out of the output."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logging, shown = client.logging, not are_progress_bars_disabled()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            enable_progress_bars()

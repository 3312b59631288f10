"""Labelled images in memory, from an embedded set or a file."""

from slimnet.data.image_data import ImageData, Split
from slimnet.data.npz import load_npz
from slimnet.errors import DataError

__all__ = ["ImageData", "Split", "load_data"]


def load_data(source: str) -> ImageData:
    """Load the data set `source` names: "digits" (embedded, 16×16 grey) or the path of a FILE.npz.

    Raises:
        DataError: a source of neither kind, or a file that is missing or malformed.
    """
    if source == "digits":
        # scikit-learn takes a second to import, and only the digits need it.
        from slimnet.data.digits import load_digits

        return load_digits()
    if source.endswith(".npz"):
        return load_npz(source)
    raise DataError(f"there is no data set {source!r}: use digits, or the path of a FILE.npz")

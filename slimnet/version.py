"""The version of slimnet, which bundles and exported files state."""

__version__ = "0.1.0"

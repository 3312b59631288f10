"""The names of the built-in networks: known without the library, which imports torch, so that a wrong one is quick."""

import difflib

import click

BUILTIN = (
    "basicnet",
    *(f"vgg{depth}" for depth in (11, 13, 16, 19)),
    *(f"resnet{depth}" for depth in (20, 32, 44, 56, 110)),
    *("resnet164", "densenet40"),
)
"""The keys of `slimnet.models.architecture.BUILTIN_ARCHITECTURES`."""


def known_architecture(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """Refuse a name that is neither built in nor one of torchvision, of timm or of code, which have a colon.

    Raises:
        click.UsageError: with the nearest built-in name, and the name for those of torchvision and timm.
    """
    if name is None or name in BUILTIN or ":" in name:
        return name
    nearest = difflib.get_close_matches(name.lower(), BUILTIN, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}, " if nearest else "is it "
    raise click.UsageError(
        f"unknown architecture {name!r}; {hint}torchvision:{name} or timm:{name}? (there are {', '.join(BUILTIN)}, "
        "torchvision:NAME, timm:NAME, package.module:factory or file.py:Class)"
    )

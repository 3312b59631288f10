"""The names of methods, criteria and runtimes, known without the library, whose import of torch takes seconds."""

from __future__ import annotations

from collections.abc import Callable

import click

METHODS = (
    *("implicit", "li2017", "liu2017", "random", "fpgm", "taylor"),
    *("group-l1", "group-l2", "group-taylor", "bnscale", "lamp"),
)
"""The keys of `slimnet.methods.scores.SCORES`."""

ENGINES = ("slimnet", "torch-pruning")
"""The values of `slimnet.comparison.settings.ENGINES`."""

CRITERIA = ("gamma", "activation")
"""The keys of `slimnet.planning.dead_channels.CRITERIA`."""

RUNTIMES = ("torch", "torch.compile", "torch.graph", "onnxruntime", "openvino", "ncnn", "executorch", "tensorrt")
"""The names of `slimnet.benchmark.runtimes.table.RUNTIMES`."""

VARIANTS = ("torch.compile", "torch.graph")
"""Those of them that run the same file or module as another one, by other means."""

DEPLOYABLE = tuple(name for name in RUNTIMES if name not in VARIANTS)
"""Those that a slim network is made for, of which widths and latencies can be asked."""

Parser = Callable[[click.Context, click.Parameter, str | None], str | None]
ListParser = Callable[[click.Context, click.Parameter, str | None], tuple[str, ...]]


def one_of(kind: str, known: tuple[str, ...]) -> Parser:
    """A callback of an option that takes one of these names."""

    def check(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
        """Refuse an unknown name.

        Raises:
            UsageError: with the nearest name, in the library's words.
        """
        from slimnet.errors import check_name

        if name is not None:
            check_name(kind, name, known)
        return name

    return check


def some_of(kind: str, known: tuple[str, ...]) -> ListParser:
    """A callback of an option that takes several of these names: "a,b" becomes ("a", "b")."""

    def split(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
        """Refuse an unknown name.

        Raises:
            UsageError: with the nearest name, in the library's words.
        """
        from slimnet.errors import check_name

        names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
        for name in names:
            check_name(kind, name, known)
        return names

    return split

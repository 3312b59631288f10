"""The layers that the caller wants left at their widths, by names and patterns."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from slimnet.errors import UsageError, nearest_name, shown
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.graph.reasons import Kind, Reason
from slimnet.planning.split_axes import ExtraPin


def as_patterns(keep: str | Sequence[str]) -> tuple[str, ...]:
    """Names and patterns of layers as they may be given: one or several.

    Raises:
        UsageError: something else.
    """
    patterns = (keep,) if isinstance(keep, str) or not isinstance(keep, Iterable) else tuple(keep)
    if not all(isinstance(each, str) and each for each in patterns):
        raise UsageError(f"keep is {shown(keep)}; it must be names or patterns of layers, such as 'layer1.*'")
    return patterns


def find_layers(graph: ChannelGraph, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers that some patterns name: a module's path, that of a module around it, or a glob such as `*.conv2`.

    Raises:
        UsageError: a pattern names no convolution and no linear layer.
    """
    names = tuple(dict.fromkeys(layer.module for layer in graph.layers))
    found: dict[str, None] = {}
    for pattern in patterns:
        own = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
        if not own:
            raise UsageError(f"there is no layer {pattern!r} to keep; {nearest_name(pattern, names)}")
        found |= dict.fromkeys(own)
    return tuple(found)


def pins_of(graph: ChannelGraph, patterns: Sequence[str]) -> tuple[ExtraPin, ...]:
    """The output channels of the layers that are to be kept, with the reason.

    Raises:
        UsageError: as `find_layers`.
    """
    if not patterns:
        return ()
    layers = set(find_layers(graph, patterns))
    labels = [layer.outputs for layer in graph.layers if layer.module in layers]
    return ((np.concatenate(labels), Reason(Kind.ASKED)),)

"""The features of a network, in the paper's sense: filters, each with its normalisation and its activation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from slimnet.graph.channel_graph import ActivationKey, ChannelGraph, Depthwise, Norm, Pointwise, Reader
from slimnet.graph.labels import Labels


@dataclass(frozen=True)
class FeatureLayer:
    """The features `(size,)` of one layer.

    Attributes:
        name: the path of the convolution; of the BatchNorm if it does not read a single convolution (after a
            concatenation or a sum, as in DenseNet and pre-activation ResNets).
        size: the number of features.
        gamma: the parameter that scales them; None without BatchNorm.
        activations: the calls of their activation, several if a module is used several times; none if another
            operand is added first, such as the shortcut of a ResNet.
    """

    name: str
    size: int
    gamma: str | None
    activations: tuple[ActivationKey, ...]


def feature_layers(graph: ChannelGraph) -> tuple[FeatureLayer, ...]:
    """Every layer of convolution features, in execution order.

    A convolution that is not directly followed by BatchNorm or an activation (the last one of a pre-activation block)
    has no features of its own: its channels are features of the BatchNorm that reads the sum. Features of linear
    layers do not count, as in the paper.
    """
    found: dict[tuple[str, str], FeatureLayer] = {}
    walker = Walker(graph)
    for key, layer in walker.layers():
        earlier = found.get(key)
        merged = tuple(dict.fromkeys((earlier.activations if earlier else ()) + layer.activations))
        found[key] = replace(earlier or layer, activations=merged)
    return tuple(found.values())


class Walker:
    """Follows a layer's outputs through ops that keep channels separate."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.activations = {_key(each.labels): each.key for each in graph.activations}
        self.readers: dict[bytes, list[Pointwise | Norm]] = {}
        for step in graph.steps:
            if isinstance(step, Pointwise | Norm):
                for operand in step.operands:
                    self.readers.setdefault(_key(operand), []).append(step)

    def layers(self) -> Iterator[tuple[tuple[str, str], FeatureLayer]]:
        """The layers by their identity: their γ, or their weight without BatchNorm."""
        convolutional = np.zeros(self.graph.size, dtype=bool)
        claimed: set[int] = set()
        for step in self.graph.steps:
            if isinstance(step, Pointwise | Norm):
                convolutional[step.out] = np.any([convolutional[operand] for operand in step.operands], axis=0)
                gamma = gamma_of(step)
                if gamma is not None and id(step) not in claimed and convolutional[step.operands[0]].any():
                    path = gamma.rpartition(".")[0]
                    yield ("γ", gamma), FeatureLayer(path, step.out.size, gamma, self.activated(step.out))
                continue
            convolutional[step.outputs] = isinstance(step, Depthwise) or step.kind == "conv"
            if convolutional[step.outputs].all():
                yield from self.behind(step, claimed)

    def behind(self, layer: Reader | Depthwise, claimed: set[int]) -> Iterator[tuple[tuple[str, str], FeatureLayer]]:
        """The features of one convolution; marks the step of their BatchNorm as claimed."""
        norm = self.norm_behind(layer.outputs)
        if norm is not None:
            claimed.add(id(norm))
            gamma = gamma_of(norm)
            assert gamma is not None
            keys = self.activated(norm.out) or self.activated(layer.outputs)
            yield ("γ", gamma), FeatureLayer(layer.module, layer.outputs.size, gamma, keys)
        elif keys := self.activated(layer.outputs):
            yield ("weight", layer.weight or layer.module), FeatureLayer(layer.module, layer.outputs.size, None, keys)

    def norm_behind(self, labels: Labels) -> Pointwise | Norm | None:
        """The step of the BatchNorm that reads exactly these channels."""
        for step in self.steps_behind(labels):
            if gamma_of(step) is not None:
                return step
        return None

    def activated(self, labels: Labels) -> tuple[ActivationKey, ...]:
        """The activation that follows these channels, before any BatchNorm."""
        for step in self.steps_behind(labels):
            key = self.activations.get(_key(step.out))
            if key is not None:
                return (key,)
            if gamma_of(step) is not None:
                return ()
        return ()

    def steps_behind(self, labels: Labels) -> Iterator[Pointwise | Norm]:
        """The chain of steps that read these channels, up to the first with another operand or with several readers."""
        waiting = [labels]
        while waiting:
            for step in self.readers.get(_key(waiting.pop()), []):
                yield step
                if isinstance(step, Pointwise) and len(step.operands) == 1:
                    waiting.append(step.out)


def gamma_of(step: Pointwise | Norm) -> str | None:
    """The γ of a BatchNorm; None for any other step."""
    return step.scale if isinstance(step, Norm) else None


def _key(labels: Labels) -> bytes:
    return np.ascontiguousarray(labels).tobytes()

"""Monitor: what is dead in a network while it trains, and what slimming it now would save."""

from dataclasses import dataclass

from torch import nn

from slimnet.modules.example_inputs import ExampleInputs, check_inputs
from slimnet.planning.dead_channels import check_threshold, dead_by_scale
from slimnet.planning.make_plan import make_plan
from slimnet.surgery.cut_history import cuts_of
from slimnet.tracing.trace import trace_whole


@dataclass(frozen=True)
class LayerReading:
    """The output channels of a convolution or linear layer: all, dead ones, and those that slimming would remove."""

    name: str
    channels: int
    dead: int
    removable: int


@dataclass(frozen=True)
class Reading:
    """A network as a `Monitor` found it.

    `macs_dense` are the multiply-accumulates of one example in the network as it was built, `macs` those in the network
    as it is, which a `Shrinker` may have cut, and `macs_if_slimmed` those that slimming would leave of it.
    """

    layers: tuple[LayerReading, ...]
    macs_dense: int
    macs: int
    macs_if_slimmed: int

    @property
    def channels(self) -> int:
        """The output channels of all layers."""
        return sum(layer.channels for layer in self.layers)

    @property
    def dead(self) -> int:
        """The dead ones among them."""
        return sum(layer.dead for layer in self.layers)

    @property
    def removable(self) -> int:
        """Those that slimming would remove."""
        return sum(layer.removable for layer in self.layers)

    def scalars(self, prefix: str = "slimnet/", *, layers: bool = False) -> dict[str, float]:
        """Names and numbers for any logger: counts, and MACs as shares, 0..1, of the dense network's.

        With `layers` there is also a count of dead channels for each layer.
        """
        found: dict[str, float] = {
            "channels": self.channels,
            "dead": self.dead,
            "removable": self.removable,
            "macs": self.macs / max(1, self.macs_dense),
            "macs_if_slimmed": self.macs_if_slimmed / max(1, self.macs_dense),
        }
        if layers:
            found |= {f"dead/{layer.name}": layer.dead for layer in self.layers}
        return {f"{prefix}{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        left = 100 * self.macs_if_slimmed / max(1, self.macs_dense)
        return (
            f"{self.dead:,} of {self.channels:,} channels are dead, {self.removable:,} can be removed; "
            f"{left:.0f} % of the dense network's MACs if slimmed now"
        )


class Monitor:
    """Finds the dead channels of a network during training, in any loop.

    Call `read()` every few hundred steps. It takes tens to hundreds of milliseconds, as long as a plan. The network is
    not run; neither it, its mode nor the random state is changed.

    Raises:
        InputError, UsageError: the inputs do not fit the network, or the threshold is no number ≥ 0.
    """

    def __init__(self, model: nn.Module, example_inputs: ExampleInputs, threshold: float = 1e-3) -> None:
        self._inputs = check_inputs(model, example_inputs)
        self.model, self.threshold = model, check_threshold(threshold)

    def read(self) -> Reading:
        """The network as it is now.

        Raises:
            TraceError: its forward depends on data.
        """
        graph = trace_whole(self.model, self._inputs)
        plan = make_plan(self.model, self._inputs, graph, dead_by_scale(graph, self.threshold))
        layers = tuple(
            LayerReading(each.name, each.channels_before, each.dead, each.channels_before - each.channels_after)
            for each in plan.layers
        )
        built = (*cuts_of(self.model), plan)[0]
        return Reading(layers, built.macs_before, plan.macs_before, plan.macs_after)

"""The options of a budget: the size of the slim network."""

from __future__ import annotations

import functools
import itertools
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.names import METHODS, RUNTIMES, one_of
from slimnet_cli.options.shared import Command
from slimnet_cli.output.slimming_phases import LATENCY, REMOVAL

if TYPE_CHECKING:
    import torch
    from slimnet_cli.options.removal import Removing
    from slimnet_cli.output import terminal
    from slimnet_cli.output.phases import PhaseProgress
    from torch import nn

    from slimnet import Slimmed
    from slimnet.data import ImageData
    from slimnet.methods import Budget, Ranking, Selection
    from slimnet.methods.budget import Unit
    from slimnet.training.recipe.recipe import Cost

UNITS: tuple[Unit, ...] = ("macs", "params", "latency")
METHOD = "implicit"
GRADIENT_BATCHES, GRADIENT_BATCH = 8, 64
"""The number of training images for the gradients of a method that needs them."""

budget = in_group("Budget (no longer exact)")

OPTIONS = (
    budget(
        "--target-macs", type=float, metavar="FRACTION", help="Keep at most this fraction of the MACs, such as 0.5."
    ),
    budget("--target-params", type=float, metavar="FRACTION", help="Keep at most this fraction of the parameters."),
    budget(
        "--target-latency", type=float, metavar="FRACTION", help="Keep at most this fraction of the latency at batch 1."
    ),
    budget(
        "--runtime",
        callback=one_of("runtime", RUNTIMES),
        help="The runtime for the latency: torch, onnxruntime, openvino, ncnn, executorch or tensorrt.  "
        "[default: onnxruntime]",
    ),
    budget(
        "--measure-on",
        type=click.IntRange(0),
        metavar="N",
        help="Number of training images of --data, without labels, for --refit and BatchNorm statistics.  "
        "[default: 256]",
    ),
    budget(
        "--refit/--no-refit",
        default=None,
        help="Fit the remaining weights to the dense network's activations on these images, or without --data on "
        "images synthesised from BatchNorm statistics.  [default: yes with --data]",
    ),
    budget(
        "--method",
        callback=one_of("method", METHODS),
        help=f"How channels are ranked: implicit, li2017, liu2017, group-l2, lamp, ...  [default: {METHOD}]",
    ),
)


@dataclass(frozen=True)
class Target:
    """The fraction of the dense network to keep, the ranking of channels, and how what is left makes up for the rest.

    `refit` is whether weights are fitted; None leaves that to whether there are images.
    """

    unit: Unit
    left: float
    method: str = METHOD
    runtime: str | None = None
    measure_on: int | None = None
    refit: bool | None = None

    @property
    def budget(self) -> Budget:
        """The budget.

        Raises:
            UsageError: it is none.
        """
        from slimnet.methods import Budget

        return Budget(self.unit, self.left)

    def check(self, images: ImageData | None) -> None:
        """Refuse an impossible request before the work begins.

        Raises:
            UsageError: no budget, no method, or images are needed and there are none.
        """
        from slimnet.errors import UsageError
        from slimnet.methods.scores import require_method

        if self.measure_on and images is None:
            raise UsageError("there are no images to measure BatchNorm statistics on; give them with --data")
        require_method(self.method, with_batches=images is not None)
        assert self.budget

    def choose(
        self, dense: nn.Module, example: torch.Tensor, images: ImageData | None, removing: Removing, round_to: Any
    ) -> tuple[Selection, Any]:
        """The channels to remove, and what their widths are rounded to: a number, or what was measured with "auto".

        Raises:
            UsageError: the budget cannot be met, or the method does not fit the network.
        """
        from slimnet.kernel_widths.fast_widths import FastWidths
        from slimnet.methods import select_within_budget
        from slimnet.methods.budget_widths import choose_rounding
        from slimnet.methods.latency_budget import stopwatch
        from slimnet.width_search import WidthSearch

        if isinstance(round_to, FastWidths):
            round_to = round_to.rounding()
        ranking = ranked(self.method, dense, example, images, self.unit, removing.threshold)
        with ExitStack() as stack:
            given: dict[str, Any] = {"keep": removing.keep}
            if self.unit == "latency":
                given["latency"] = stack.enter_context(stopwatch(dense, example, self.runtime))

            def select(widths: Any) -> Selection:
                return select_within_budget(dense, example, ranking, self.budget, round_to=widths, **given)

            if not isinstance(round_to, WidthSearch):
                return select(round_to), round_to
            auto = replace(round_to, runtime=round_to.runtime or self.runtime)
            found = choose_rounding(dense, example, select, auto)
        return found.selection, found.round_to

    def timed(self, dense: nn.Module, slimmed: Slimmed, example: torch.Tensor, say: terminal.Say) -> Slimmed:
        """The slim network with its latency in its certificate, measured if that is the budget."""
        from slimnet.methods.latency_budget import measure_latency

        if self.unit != "latency":
            return slimmed
        say(LATENCY)
        found = measure_latency(dense, slimmed.model, example, self.left, self.runtime)
        return replace(slimmed, certificate=replace(slimmed.certificate, latency=found))

    def shown(self, images: ImageData | None) -> int:
        """The number of training images on which the network is corrected; 0 without any."""
        from slimnet.methods.batchnorm_measure import ENOUGH

        wanted = ENOUGH if self.measure_on is None else self.measure_on
        return 0 if images is None else min(wanted, len(images.x_train))

    def fits(self, images: ImageData | None) -> bool:
        """Whether weights are fitted."""
        return self.shown(images) > 0 if self.refit is None else self.refit

    def correction(
        self, dense: nn.Module, example: torch.Tensor, images: ImageData | None, progress: PhaseProgress
    ) -> dict[str, Any]:
        """How `remove_selected` corrects the network, as its arguments; images are made where they are needed.

        Raises:
            UsageError: images are needed, there are none, and none can be made for this network.
        """
        from slimnet.methods import synthesise_images

        given: dict[str, Any] = {"images": None}
        if images is not None and self.shown(images):
            given["images"] = images.sample(self.shown(images))
        elif self.refit:
            given["images"] = synthesise_images(dense, example, watch=progress.telling("making images", "steps"))
        if self.fits(images):
            given |= {"refit": True, "watch": progress.counting(REMOVAL, "fitting weights", "layers")}
        return given

    def correction_in_words(self, images: ImageData | None) -> str:
        """A sentence about the images that the network was corrected on; "" where there were none."""
        shown = self.shown(images)
        if self.fits(images):
            source = f"{shown:,} training images, without labels" if shown else "images made from BatchNorm statistics"
            return f"The remaining weights were fitted on {source}."
        return f"BatchNorm statistics were measured on {shown:,} training images, without labels." if shown else ""


def ranked(
    method: str, dense: nn.Module, example: torch.Tensor, images: ImageData | None, unit: Unit, threshold: float
) -> Ranking:
    """The ranking of a method, in which dead channels are removed first; costs are in MACs or parameters."""
    from slimnet.methods import score_channels

    batches = None if images is None else itertools.islice(images.batches("train", GRADIENT_BATCH), GRADIENT_BATCHES)
    cost: Cost = "params" if unit == "params" else "macs"
    return replace(
        score_channels(method, dense, example, batches=batches, cost=cost, threshold=threshold), threshold=threshold
    )


def target_options(command: Command) -> Command:
    """Add the options; the command gets them as one `target`, None without a budget."""

    @functools.wraps(command)
    def with_target(
        runtime: str | None, method: str | None, measure_on: int | None, refit: bool | None, **given: Any
    ) -> Any:
        fractions = {unit: given.pop(f"target_{unit}") for unit in UNITS}
        found = [
            Target(unit, left, method or METHOD, runtime, measure_on, refit)
            for unit, left in fractions.items()
            if left is not None
        ]
        if len(found) > 1:
            raise click.UsageError("there can be one budget: --target-macs, --target-params or --target-latency")
        if method and not found:
            raise click.UsageError("--method ranks channels for a budget; give one, such as --target-macs 0.5")
        if measure_on is not None and not found:
            raise click.UsageError("--measure-on is for a network at a budget; give one, such as --target-macs 0.5")
        if refit is not None and not found:
            raise click.UsageError("--refit is for a network at a budget; give one, such as --target-macs 0.5")
        if runtime and fractions["latency"] is None:
            raise click.UsageError("--runtime is for --target-latency; give that too")
        return command(target=found[0] if found else None, **given)

    return functools.reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), with_target)

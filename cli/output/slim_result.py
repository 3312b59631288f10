"""What `slimnet slim` prints: a plan, or what became of a network and its bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimnet_cli.output import before_after, terminal
from slimnet_cli.output.next_step import say_next, show_next
from slimnet_cli.output.option_names import with_options
from slimnet_cli.output.width_hint import note_missed

if TYPE_CHECKING:
    from slimnet import Slimmed, SurgeryPlan
    from slimnet.counting import NetworkCounts
    from slimnet.methods import Selection
    from slimnet.onnx_slimming.slim_onnx import SlimmedOnnx
    from slimnet.training import Accuracy

DRY_NEXT = "the same command with -o and without --dry-run"


@dataclass(frozen=True)
class Budgeted:
    """A budget as JSON, the channels selected for it, and a sentence on what the remaining weights were fitted on."""

    target: Mapping[str, Any]
    selection: Selection
    correction: str = ""

    @property
    def exact(self) -> bool:
        """Whether dead channels alone meet the budget."""
        return not self.selection.count

    def document(self) -> dict[str, Any]:
        """The budget and the selection, as JSON."""
        return {**self.target, "chosen_channels": self.selection.count, "exact": self.exact}


@dataclass(frozen=True)
class SlimResult:
    """A slim network in its bundle.

    `accuracies` and `counts` are those of the dense and the slim network; `images` is the --data that they were
    measured on, None without. `arguments` are the words that name the bundle on another command line.
    """

    slimmed: Slimmed
    folder: Path
    counts: tuple[NetworkCounts, NetworkCounts]
    accuracies: tuple[Accuracy, Accuracy] | None
    images: str | None
    budgeted: Budgeted | None
    arguments: Sequence[str]

    def document(self) -> dict[str, Any]:
        """The result as JSON."""
        chosen = {"target": self.budgeted.document()} if self.budgeted else {}
        found = before_after.document(self.slimmed, self.accuracies, self.counts)
        return found | chosen | {"bundle": str(self.folder)}

    def show(self) -> None:
        """Print the result as a table, with what was kept, the certificate, and the next command."""
        plan, certificate = self.slimmed.plan, self.slimmed.certificate
        console = terminal.result()
        console.print(before_after.table(self.slimmed, self.accuracies, counts=self.counts))
        console.print(before_after.counted_by(plan, self.counts), style="dim", soft_wrap=True)
        _print_widths(plan)
        if self.budgeted:
            note = _budget_note(self.budgeted.selection, plan, self.accuracies is not None, self.budgeted.correction)
            console.print(f"\n{note}", soft_wrap=True)
        if certificate.latency:
            console.print(f"\n{certificate.latency}", soft_wrap=True)
            note_missed(certificate.latency, plan.rounding)
        console.print(f"\ndead: {plan.criterion}\n{certificate}\n\nwritten to {self.folder}", soft_wrap=True)
        self._show_next()

    def _show_next(self) -> None:
        """The next command: fine-tuning where live channels went and there are images, else a verification.

        A network that no architecture builds is not fine-tuned from its bundle.
        """
        exact = self.budgeted is None or self.budgeted.exact
        if self.images is None or exact or self.slimmed.architecture is None:
            show_next("verify", *self.arguments)
            return
        tuned = self.folder.with_name(f"{self.folder.name}-tuned")
        show_next("finetune", *self.arguments, "--data", self.images, "-o", tuned)


def show_file(slimmed: SlimmedOnnx) -> None:
    """Print what became of an ONNX file."""
    console = terminal.result()
    console.print(before_after.table(slimmed, None))
    _print_widths(slimmed.plan)
    measured = f"{slimmed.certificate}, measured under onnxruntime on {slimmed.inputs}"
    console.print(f"\ndead: {slimmed.plan.criterion}\n{measured}\n\nwritten to {slimmed.path}", soft_wrap=True)
    say_next(f"onnxruntime.InferenceSession({str(slimmed.path)!r}) runs it, with the inputs of the dense one")


def show_plan(plan: SurgeryPlan, selection: Selection | None = None, *, as_json: bool) -> None:
    """Print a plan that is not applied; `selection` are the live channels that a budget takes."""
    from slimnet.surgery.plan import SHARES

    if as_json:
        terminal.emit(json.loads(plan.to_json()) | {SHARES: plan.shares.to_data()})
        return
    console = terminal.result()
    console.print(with_options(str(plan)), soft_wrap=True)
    if selection is not None:
        console.print(f"\n{_budget_note(selection, plan, measured=False)}", soft_wrap=True)
    say_next(DRY_NEXT)


def _print_widths(plan: SurgeryPlan) -> None:
    """Print how widths were rounded, and what becomes of the dead channels."""
    from slimnet.surgery.plan_text import width_lines

    console = terminal.result()
    if lines := width_lines(plan):
        console.print("\n" + with_options("\n".join(line.removeprefix("  ") for line in lines)), soft_wrap=True)
    if shares := str(plan.shares):
        console.print(f"\n{shares}", soft_wrap=True)


def _budget_note(selection: Selection, plan: SurgeryPlan, measured: bool, correction: str = "") -> str:
    """The note that a network at a budget is not exact, or that dead channels alone met the budget.

    `measured` is whether the accuracy was measured, `correction` what is to be said of the images for that.
    """
    if not selection.count:
        return "Dead channels alone meet the budget: this is exact."
    cost = "the accuracy above is before any fine-tuning" if measured else "see what that costs with --data"
    note = f"This is not exact: {_taken(selection, plan)}. The certificate compares with the network in which they "
    note += f"are masked and what remains is corrected; {cost}."
    return f"{note} {correction}".rstrip()


def _taken(selection: Selection, plan: SurgeryPlan) -> str:
    """What a method took: live channels that were removed, or only dead ones, whose constants are zero now."""
    if not plan.live:
        return f"{selection.count:,} dead channels were set to zero, chosen by {selection.method}"
    channels = "1 live channel was" if plan.live == 1 else f"{plan.live:,} live channels were"
    return f"{channels} removed, chosen by {selection.method}"

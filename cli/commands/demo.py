"""slimnet demo: the whole workflow on real images, in a few minutes, without a download."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text
from slimnet_cli.options.contenders import measured
from slimnet_cli.options.shared import json_option
from slimnet_cli.output import before_after, method_table, terminal
from slimnet_cli.output.destinations import demo_folder
from slimnet_cli.output.next_step import show_next

if TYPE_CHECKING:
    from torch import nn

    from slimnet import Slimmed
    from slimnet.benchmark import Comparison
    from slimnet.comparison import Results, Settings
    from slimnet.data import ImageData
    from slimnet.training import Accuracy, TrainingRun

EXAMPLES = """\b
Examples:
  slimnet demo --out runs/demo
  slimnet demo --out runs/demo --json > demo.json
"""
MAKER = "slimnet demo"
SHRINK_EVERY = 50
"""The number of iterations between removals of dead filters during training."""

TUNED_FOR = 150
"""Iterations of fine-tuning, for every method; a few seconds in all."""


@dataclass(frozen=True)
class Outcome:
    """The results of the demo; `dense` is the trained network with its initial widths."""

    run: TrainingRun
    dense: nn.Module
    slimmed: Slimmed
    accuracies: tuple[Accuracy, Accuracy]
    comparison: Comparison
    methods: Results


@click.command(epilog=EXAMPLES, short_help="Show the whole workflow on real images, in minutes.")
@click.option(
    "--out",
    default="runs/demo",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder; an earlier demo there is replaced.",
)
@json_option
def demo(out: Path, as_json: bool) -> None:
    """Train a small network, slim it, certify, export and measure it, and write a report.

    A narrow network is trained with Adam and L2 regularisation on scikit-learn's digits until filters die; dead filters
    are removed during the training, which makes steps cheaper. The result is slimmed, a certificate shows that the
    outputs do not change, and the dense and the slim network are timed in interleaved measurements. Finally other
    methods of choosing channels remove channels down to the same MACs, and to half of them, with slimnet's surgery and
    with torch-pruning's.
    """
    with demo_folder(out) as folder:
        outcome = _play(folder)
        summary = _summary(outcome)
        (folder / "demo.json").write_text(json.dumps(summary, indent=1, default=str) + "\n", encoding="utf-8")
    if as_json:
        terminal.emit(summary | {"folder": str(out)})
    else:
        _show(outcome, out)


def _play(folder: Path) -> Outcome:
    from slimnet.data import load_data
    from slimnet.training import DIGITS_DEMO

    with terminal.working("Reading the digits"):
        images = load_data(DIGITS_DEMO.data)
    run = _train(images)
    dense = run.dense_model().eval()
    with terminal.working("Slimming and exporting"):
        slimmed, accuracies = _slim(dense, images, folder)
    comparison = _measure(dense, slimmed, folder)
    methods = _compare(dense, slimmed, images)
    outcome = Outcome(run, dense, slimmed, accuracies, comparison, methods)
    with terminal.working("Drawing the report"):
        _report(outcome, folder / "report.html")
    return outcome


def _train(images: ImageData) -> TrainingRun:
    from slimnet_cli.progress.live_run import STEPS_BETWEEN_REPORTS, watch

    from slimnet.training import DIGITS_DEMO, train

    recipe = replace(DIGITS_DEMO, shrink_every=SHRINK_EVERY)
    run = train(recipe, images, every=STEPS_BETWEEN_REPORTS, threads=1)
    watch(run)
    seconds = run.history[-1].progress.seconds
    terminal.note(f"trained for {seconds:.0f} s: {100 * run.sparsity():.0f} % of the filters are dead")
    return run


def _slim(dense: nn.Module, images: ImageData, folder: Path) -> tuple[Slimmed, tuple[Accuracy, Accuracy]]:
    import slimnet
    from slimnet.bundle.bundle import save
    from slimnet.data import Batches

    loader = Batches(images)
    example, _ = next(images.batches("test", batch_size=4))
    slimmed = slimnet.slim(dense, example, loader=loader, float64=True)
    accuracies = slimmed.certificate.accuracies
    assert accuracies is not None, "the loader's images have labels"
    _save_dense(dense, slimmed, folder / "dense")
    save(slimmed, folder / "slim", source="slimnet demo", images=images.spec)
    terminal.note(f"removed {slimmed.plan.removed_channels} channels, certified, exported to ONNX")
    return slimmed, accuracies


def _save_dense(dense: nn.Module, slimmed: Slimmed, folder: Path) -> None:
    """The dense network in the same two forms as the slim one."""
    from slimnet.bundle.blueprint import write_weights
    from slimnet.export.onnx import export_onnx

    folder.mkdir()
    write_weights(dense, folder / "model.safetensors")
    export_onnx(dense, slimmed.example_inputs, folder / "model.onnx")


def _measure(dense: nn.Module, slimmed: Slimmed, folder: Path) -> Comparison:
    from slimnet.benchmark import Contender, Settings

    def contender(name: str, model: Any) -> Contender:
        files = {"weights": folder / name / "model.safetensors", "onnx": folder / name / "model.onnx"}
        return Contender(name, model, files["onnx"], files)

    contenders = [contender("dense", dense), contender("slim", slimmed.model)]
    # One thread, as for training: the slim network is too small for several.
    return measured(contenders, slimmed.example_inputs, Settings(threads=1))


def _compare(dense: nn.Module, slimmed: Slimmed, images: ImageData) -> Results:
    """Other methods on the same network, within the MACs of the slim network."""
    from slimnet_cli.commands.compare import watch

    from slimnet.comparison import Study

    with tempfile.TemporaryDirectory() as folder:
        study = Study("the demo's network", dense, images, contest(slimmed), folder)
        watch(study)
        return study.results()


def contest(slimmed: Slimmed) -> Settings:
    """Four methods at the MACs of the slim network and at half of them, two by torch-pruning too; with fine-tuning."""
    from slimnet.comparison import Settings
    from slimnet.methods import Budget
    from slimnet.training import DIGITS_DEMO
    from slimnet.training.finetune import retraining

    left = slimmed.plan.macs_after / slimmed.plan.macs_before
    return Settings(
        methods=("implicit", "li2017", "liu2017", "random"),
        budgets=(Budget("macs", left), Budget("macs", left / 2)),
        engines=("torch-pruning",),
        rival_methods=("implicit", "li2017"),
        finetuning=retraining(DIGITS_DEMO.arch, DIGITS_DEMO.data, TUNED_FOR, optimiser="adam", batch_size=32),
        threads=1,
        seconds=0.5,
    )


def _report(outcome: Outcome, path: Path) -> None:
    import slimnet
    from slimnet.report import Report, Training, write_report

    run, slimmed = outcome.run, outcome.slimmed
    inspection = slimnet.inspect(outcome.dense, slimmed.example_inputs.args)
    report = Report(
        title=f"{run.recipe.arch} on {run.recipe.data}",
        plan=slimmed.plan,
        certificate=slimmed.certificate,
        environment=outcome.comparison.environment,
        gammas={layer.name: layer.gammas for layer in inspection.layers if layer.gammas},
        accuracies=outcome.accuracies,
        comparison=outcome.comparison,
        training=Training(run.recipe, run.history),
        methods=outcome.methods,
    )
    write_report(report, path)


def _summary(outcome: Outcome) -> dict[str, Any]:
    return {
        "made_by": MAKER,
        "recipe": asdict(outcome.run.recipe),
        "training_seconds": outcome.run.history[-1].progress.seconds,
        **before_after.document(outcome.slimmed, outcome.accuracies),
        "comparison": outcome.comparison.to_dict(),
        "methods": outcome.methods.to_dict(),
    }


def _show(outcome: Outcome, out: Path) -> None:
    console = terminal.result()
    console.print(before_after.table(outcome.slimmed, outcome.accuracies, outcome.comparison))
    outputs = (
        ("report.html", "the report"),
        ("slim", "the slim network: weights, ONNX, plan and certificate"),
        ("dense", "the network as it was trained"),
        ("demo.json", "all the numbers"),
    )
    console.print()
    console.print(str(outcome.slimmed.certificate), soft_wrap=True)
    console.print()
    method_table.show(console, outcome.methods)
    console.print()
    console.print(terminal.table(("", ""), [(Text(f"{out / name}", style="bold"), what) for name, what in outputs]))
    show_next("export", out / "slim", "-o", "slim.onnx")

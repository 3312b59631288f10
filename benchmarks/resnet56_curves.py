"""Error against MACs of a published ResNet-56 on the whole CIFAR-10 test set, for every method and the rival engine.

The checkpoint is akamaster's ResNet-56 (resnet56-4bfd9763.th), whose images are normalised as ImageNet's. Each method
ranks channels, the same surgery removes the fewest that bring the network within a budget of MACs, the statistics of
BatchNorms are re-estimated without them, and the error on the 10,000 test images is measured, as it is and, at some
budgets, after a short fine-tuning that is the same for all, and for the most telling after a longer one too. The
published methods are there a second time, "plain": as in their papers the BatchNorms stay as they were. Two are there
with BatchNorms "measured" on 256 training images without labels, where otherwise they are estimated without any data.
In the rows called "fitted" the remaining weights are fitted to the dense network's activations on such images, or,
"fitted without data", on 128 images that are made from the statistics of its BatchNorms.
torch-pruning's own pruners choose and cut by themselves, to the same MACs: see rivals.py. Li et al.'s recipes A and B
are single points.

Networks are tested in bfloat16 with BatchNorm folded into the convolutions, and images whose two best scores are
closer than a twentieth of the largest one are looked at again in float32, so that predictions are those of float32 at a
third of the time (with --float32 all in float32, which is faster where the processor does not multiply in bfloat16);
for the dense network both are computed and must agree on every image. Fine-tuning computes in
bfloat16 over float32 weights. Every point is tested first, and fine-tuned after that.

    python benchmarks/resnet56_curves.py CHECKPOINT CIFAR10.npz [--iterations 100] [--out FILE.json]
    python benchmarks/resnet56_curves.py --table

Points that are in the output file already are not computed again, so that an interrupted run goes on where it was. The
plot is drawn beside it, as docs/resnet56-curves.svg.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rivals
import torch
from resnet56_bench import ARCH, FITTED, MADE, MEASURED, PLAIN, Bench, bare
from torch import nn

import slimnet
from slimnet.benchmark.environment import environment
from slimnet.errors import SlimnetError
from slimnet.methods import (
    METHODS,
    Budget,
    published,
    remove_selected,
    select_within_budget,
)
from slimnet.storage.files import whole_file
from slimnet.training.finetune import retraining

ARROWS = {"→": "finetuned", "⇒": "longer"}
"""What stands before an error after fine-tuning in the table."""
BUDGETS = (0.9, 0.75, 0.6, 0.5, 0.4)
FINETUNED = (0.5, 0.75)
LONGER = (("implicit", 0.5), ("li2017", 0.5), ("implicit", 0.4), ("li2017", 0.4), ("fpgm", 0.5), ("li2017, plain", 0.5))
"""Points that are fine-tuned for longer as well, the most telling first."""
PUBLISHED = ("ResNet-56-A", "ResNet-56-B")
OTHERS = tuple(method for method in METHODS if method != "implicit")
FOLDER = Path(__file__).parent
PLOT = FOLDER.parent / "docs" / "resnet56-curves.svg"
COLOURS = {
    "implicit": "#0b6e4f",
    "implicit, exact": "#0b6e4f",
    "li2017": "#c8553d",
    "liu2017": "#2e5eaa",
    "random": "#8d8d8d",
    "fpgm": "#b98a1b",
    "taylor": "#8a4b86",
    "ResNet-56-A": "#c8553d",
    "ResNet-56-B": "#7d2c1b",
    "BNScalePruner": "#6fa0d8",
    "MagnitudePruner": "#e08fb0",
}


Job = tuple[Callable[..., dict[str, Any]], tuple[str, float | None]]


def points() -> Iterator[tuple[str, float | None]]:
    """Every point of every curve: the method, and the share of the MACs that it may leave."""
    for method in ("dense", "implicit, exact", *PUBLISHED):
        yield method, None
    helped = ["implicit" + MEASURED, "li2017" + MEASURED, "implicit" + FITTED, "li2017" + FITTED, "implicit" + MADE]
    for method in ("implicit", *OTHERS, *helped, *(method + PLAIN for method in OTHERS), *rivals.PRUNERS):
        for budget in BUDGETS:
            yield method, budget


def network(bench: Bench, method: str, budget: float | None) -> tuple[nn.Module, dict[str, Any]]:
    """The slim network of a point, and what there is to say about how it came about."""
    if method == "dense":
        return bench.model, {"macs": bench.macs, "params": parameters(bench.model)}
    if method in (*rivals.PRUNERS, rivals.GROUP_PRUNER):
        assert budget is not None
        convertible = rivals.with_projections(bench.model)
        cut = rivals.brought_to(method, convertible, bench.inputs[:1], budget * bench.macs)
        return cut.model, {"macs": cut.macs, "params": parameters(cut.model), "ratio": cut.ratio}
    if method == "implicit, exact":
        slimmed = slimnet.slim(bench.model, bench.inputs)
    elif budget is None:
        chosen = published(method, bench.model, bench.inputs)
        slimmed = remove_selected(bench.model, bench.inputs, chosen, recalibrate=False)
    else:
        chosen = select_within_budget(bench.model, bench.inputs, bench.ranking(bare(method)), Budget("macs", budget))
        slimmed = remove_selected(bench.model, bench.inputs, chosen, **bench.correction(method))
    plan = slimmed.plan
    return slimmed.model, {
        "macs": plan.macs_after,
        "params": plan.params_after,
        "removed": plan.removed_channels,
        "difference": slimmed.certificate.max_rel_difference,
    }


def parameters(model: nn.Module) -> int:
    """Parameters but for those of shortcuts, which only the rival's network has."""
    return sum(each.numel() for name, each in model.named_parameters() if "shortcut" not in name)


def point(bench: Bench, method: str, budget: float | None) -> dict[str, Any]:
    """One point: what is left, and at what error."""
    model, found = network(bench, method, budget)
    found |= {"method": method, "budget": budget, "error": bench.error(model)}
    if method == "dense":
        found["images_predicted_otherwise_in_float32"] = int(
            (bench.predictions(model) != bench.certain_predictions(model)).sum()
        )
    return found


def tuned(bench: Bench, method: str, budget: float | None) -> dict[str, Any]:
    """The error of a point after the fine-tuning."""
    model, _ = network(bench, method, budget)
    return {"finetuned": bench.error(bench.finetuned(model, bench.recipe))}


def tuned_longer(bench: Bench, method: str, budget: float | None) -> dict[str, Any]:
    """The error of a point after the longer fine-tuning."""
    model, _ = network(bench, method, budget)
    return {"longer": bench.error(bench.finetuned(model, bench.longer))}


def key(method: str, budget: float | None) -> str:
    """The name of a point."""
    return method if budget is None else f"{method} at {budget:g}"


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def rows(results: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The points of each method, most MACs first."""
    methods = dict.fromkeys(method for method, _ in points())
    found = [(method, [each for each in results["points"].values() if each["method"] == method]) for method in methods]
    return [(method, sorted(each, key=lambda row: -row["macs"])) for method, each in found if each]


def table(results: dict[str, Any]) -> str:
    """Error in per cent by method and MACs left: as it is, and after an arrow fine-tuned."""
    dense = results["points"]["dense"]["macs"]
    lines = [
        "| Method | " + " | ".join(f"{100 * left:.0f} % of the MACs" for left in BUDGETS) + " |",
        "|---|" + "--:|" * len(BUDGETS),
    ]
    singles = []
    for method, each in rows(results):
        if each[0]["budget"] is None:
            singles.append(f"{method}: {100 * each[0]['macs'] / dense:.1f} % of the MACs, error {shown(each[0])}")
            continue
        by_budget = {row["budget"]: row for row in each}
        cells = [shown(by_budget[left]) if left in by_budget else "–" for left in BUDGETS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    words = "; ".join(singles)
    crashes = "; ".join(f"{name} {said}" for name, said in results["rival_as_it_is"].items())
    return "\n".join([*lines, "", f"Single points: {words}.", "", f"torch-pruning on the network as it is: {crashes}."])


def shown(row: dict[str, Any]) -> str:
    """An error in per cent, and those after the fine-tunings."""
    after = "".join(f" {sign} {100 * row[name]:.2f}" for sign, name in ARROWS.items() if name in row)
    return f"{100 * row['error']:.2f}{after}"


def draw(results: dict[str, Any], path: Path) -> None:
    """The curves, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "slimnet"
    from matplotlib import pyplot

    dense, words = results["points"]["dense"], results["recipe"]["iterations"]
    titles = {"error": "As it is removed", "finetuned": f"After {words} iterations of fine-tuning"}
    fields = [field for field in titles if any(field in row and row is not dense for row in results["points"].values())]
    figure, panels = pyplot.subplots(
        1, len(fields), figsize=(1.6 + 4.6 * len(fields), 4.6), layout="constrained", squeeze=False
    )
    for panel, field in zip(panels[0], fields, strict=True):
        for method, each in rows(results):
            places = [row for row in each if field in row and method != "dense"]
            if places:
                horizontal = [100 * row["macs"] / dense["macs"] for row in places]
                panel.plot(horizontal, [100 * row[field] for row in places], label=method, **stroke(places[0]))
        panel.axhline(100 * dense["error"], color="#444", linewidth=0.8, linestyle=(0, (1, 2)), label="dense")
        panel.set(title=titles[field], xlabel="MACs left, %", ylabel="error on 10,000 test images, %")
        panel.invert_xaxis()
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def stroke(row: dict[str, Any]) -> dict[str, Any]:
    """How a method is drawn.

    Stars are single points, dashes the rival's, dots what is plain, diamonds what is
    measured, triangles what is fitted.
    """
    method = row["method"]
    colour = COLOURS[bare(method)]
    style = {"marker": "o", "markersize": 4, "linewidth": 1.4, "color": colour}
    if method.endswith(MEASURED):
        style |= {"marker": "D", "linewidth": 2.4}
    if method.endswith((FITTED, MADE)):
        style |= {"marker": "^" if method.endswith(FITTED) else "v", "markersize": 6, "linewidth": 2.8}
    if method.endswith(PLAIN):
        style |= {"linestyle": (0, (1, 2)), "markersize": 2}
    if method in rivals.PRUNERS:
        style |= {"linestyle": (0, (4, 2)), "marker": "s"}
    if row["budget"] is None:
        style |= {"linestyle": "none", "marker": "*", "markersize": 9}
    return style


def main() -> None:
    """Compute what is missing, saying how far it is, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--longer", type=int, default=500, help="iterations of the longer fine-tuning, along a cosine")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--only", action="append", default=[], help="this method alone; may be given several times")
    parser.add_argument("--untuned", action="store_true", help="no fine-tuning")
    parser.add_argument("--float32", action="store_true", help="test in float32 throughout")
    parser.add_argument("--table", action="store_true", help="print what is in the output file and compute nothing")
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "resnet56_curves.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(options.out.read_text()) if options.out.exists() else {"points": {}}
    if not options.table:
        recipe = retraining(
            ARCH, "cifar10", options.iterations, batch_size=64, lr=options.lr, flips=True, crop=4, precision="bf16"
        )
        longer = dataclasses.replace(recipe, iterations=options.longer, lr=10 * options.lr, cosine=True)
        bench = Bench(options.checkpoint, options.data, recipe, longer, float32=options.float32)
        compute(bench, results, options.out, options.only, tune=not options.untuned)
        draw(results, PLOT)
    print(table(results))


def compute(bench: Bench, results: dict[str, Any], out: Path, only: Sequence[str], *, tune: bool) -> None:
    """Add what is missing to the results, of the methods asked for, each with where it was computed."""
    settings = {
        "recipe": dataclasses.asdict(bench.recipe),
        "longer": dataclasses.asdict(bench.longer),
        "threads": 1,
        "images": len(bench.data.y_test),
    }
    if results["points"] and not all(agrees(results.get(name), settings[name]) for name in settings):
        sys.exit(f"{out} was computed with other settings; name another file with --out")
    results |= settings
    if "rival_as_it_is" not in results:
        results["rival_as_it_is"] = {
            name: rivals.crash(name, bench.model, bench.inputs[:1]) or "runs" for name in rivals.PRUNERS
        }
    known, asked = results["points"], [each for each in points() if not only or each[0] in only]
    work: list[Job] = [(point, each) for each in asked if key(*each) not in known]
    if tune:
        work += [(tuned, each) for each in asked if to_tune(*each) and "finetuned" not in known.get(key(*each), {})]
        work += [(tuned_longer, each) for each in LONGER if "longer" not in known.get(key(*each), {})]
    here = dict(environment().rows())
    results.setdefault("environment", here)
    for number, (job, each) in enumerate(work, 1):
        print(f"{number}/{len(work)} {job.__name__} {key(*each)}", file=sys.stderr, flush=True)
        known[key(*each)] = known.get(key(*each), {}) | job(bench, *each)
        if here["Processor"] != results["environment"]["Processor"] or bench.float32:
            known[key(*each)] |= {"processor": here["Processor"], "float32": bench.float32}
        write(out, results)


def agrees(stored: Any, now: Any) -> bool:
    """Whether settings are those that were stored; ones that there were not yet have no effect at their defaults."""
    if isinstance(stored, dict):
        now = json.loads(json.dumps(now))
        return all(now.get(name) == value for name, value in stored.items())
    return bool(stored == now)


def to_tune(method: str, budget: float | None) -> bool:
    """Whether a point is to be fine-tuned."""
    return budget in FINETUNED or method in PUBLISHED


if __name__ == "__main__":
    main()

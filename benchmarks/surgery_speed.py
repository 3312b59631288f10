"""The surgery on every network of the zoo: exact or not, channels removed, seconds, beside torch-pruning.

Each network gets 40 % dead channels, drawn independently per BatchNorm, with calibrated statistics. For three kinds
of β on the dead channels the slim network is compared with the masked one on an image it has not seen, in double
precision, beside what the masked network's own rounding errors come to.
Then both tools do their whole job on the same network in this process on one thread, alternating: slimnet traces,
plans and applies, as `slimnet.slim` does before its certificate; torch-pruning builds its dependency graph,
enumerates all groups, and prunes the channels that are dead in every BatchNorm of a group. It prunes in place, so it
works on a copy, whose making is not timed; its crashes and its output error are recorded. The ratio is that of the
medians; where torch-pruning crashes it is not counted, since a crash is quick. Python's garbage is collected before
each run, so that neither pays for the other's. Peak memory is that of `slim` with its
certificate on one image, in a process of its own: what its resident memory grew by at its highest point (Linux's
VmHWM), together with the dense network itself, over the size of the dense network. A part of it, some 4 MB whatever
the network, is no memory of anybody's: pages of torch's own library files that are read for the first time (RssFile),
which all processes share and Linux drops where it likes. A second ratio leaves them out.

    python benchmarks/surgery_speed.py [--repeats 3] [--part race] [--out FILE.json] [NAME ...]
    python benchmarks/surgery_speed.py --table

On maxvit_t torch-pruning asks for more memory than 24 GB, so that it is not raced.

What is in the output file already is not run again, so that an interrupted run goes on where it was; `--part` runs
one part only, such as the race while nothing else uses the machine.
"""

import argparse
import copy
import ctypes
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from zoo import (
    BETAS,
    SEGMENTATION,
    batch_norms,
    classifiers,
    images,
    network,
    outputs,
    relative,
    rounding,
    scatter_dead,
)

import slimnet
from slimnet.benchmark.environment import environment
from slimnet.errors import SlimnetError
from slimnet.modules.copying import shared_copy
from slimnet.modules.network import Network
from slimnet.planning.dead_channels import dead_by_scale
from slimnet.planning.make_plan import make_plan
from slimnet.storage.files import whole_file
from slimnet.surgery.network_comparison import masked_scales
from slimnet.torch_state.process import collection_paused
from slimnet.tracing.trace import trace

FRACTION = 0.4
CALIBRATED_ON = 16
"""Images for BatchNorm's statistics: of fewer, the few positions of the last layers hardly vary, which makes the
rounding errors of efficientnet_v2_l a million times as large."""
PATIENCE_SECONDS = 30.0
"""No more repetitions of a race that has taken this long."""
THRESHOLD = 1e-3
MOST_MEMORY = 2.5
"""How many times its own size slimming a network should take at most."""


def exactness(name: str, beta: str) -> dict[str, Any]:
    """Slim one network and compare it with the masked one on fresh images."""
    dtype = torch.float64
    model = network(name).to(dtype)
    dead = scatter_dead(model, images(name, CALIBRATED_ON, dtype=dtype), FRACTION, beta)
    slimmed = slimnet.slim(model, images(name, 2, dtype=dtype), THRESHOLD, tolerance=float("inf"))
    masked = shared_copy(model, masked_scales(model, slimmed.plan)).eval()
    fresh = images(name, 1, dtype=dtype)
    layers = [layer for layer in slimmed.plan.layers if layer.kind != "linear"]
    return {
        "error": relative(outputs(masked, fresh), outputs(slimmed.model, fresh)),
        "rounding": rounding(masked, fresh),
        "dead_gammas": dead,
        "channels": sum(layer.channels_before for layer in layers),
        "removed": sum(layer.channels_before - layer.channels_after for layer in layers),
        "params": [slimmed.plan.params_before, slimmed.plan.params_after],
        "macs": [slimmed.plan.macs_before, slimmed.plan.macs_after],
    }


@collection_paused()
def ours(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """slimnet's whole job, from one walk over the network and with one pause of Python's collector, as in `slim`."""
    dense = Network.of(model)
    graph = trace(dense, inputs)
    dead = dead_by_scale(graph, THRESHOLD)
    return slimnet.apply_plan(dense, make_plan(dense, inputs, graph, dead, retrace=False))


def theirs(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """torch-pruning's whole job on the same dead channels; the model is pruned in place."""
    import torch_pruning as tp

    dead = {norm: (norm.weight.detach().abs() < THRESHOLD) for norm in batch_norms(model)}
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs)
    pending = []
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        masks = []
        for dependency, indices in group:
            mask = dead.get(dependency.target.module)
            if mask is not None and len(indices) == mask.numel():
                masks.append(mask[torch.as_tensor(indices)])
        if masks:
            doomed = torch.stack(masks).all(0).nonzero().reshape(-1).tolist()
            root = group[0].dep
            if doomed and len(doomed) < len(group[0].idxs):
                pending.append((root.target.module, root.handler, doomed))
    for module, handler, doomed in pending:
        group = graph.get_pruning_group(module, handler, idxs=doomed)
        if graph.check_pruning_group(group):
            group.prune()
    return model


def timed(
    job: Callable[[nn.Module, torch.Tensor], nn.Module], model: nn.Module, inputs: torch.Tensor
) -> tuple[float, Any]:
    """Seconds of one run and its result, or the error it died of."""
    gc.collect()
    start = time.perf_counter()
    try:
        result: Any = job(model, inputs)
    except Exception as error:  # the rival's crashes are a result
        result = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return time.perf_counter() - start, result


def race(name: str, repeats: int) -> dict[str, Any]:
    """Both tools on one network, alternating."""
    import torch_pruning  # noqa: F401 so that the first run does not pay for it

    model = network(name)
    scatter_dead(model, images(name, 3), FRACTION, "negative")
    inputs = images(name, 1)
    seconds: dict[str, list[float]] = {"slimnet": [], "torch_pruning": []}
    rival: Any = None
    for _ in range(repeats):
        if sum(map(sum, seconds.values())) > PATIENCE_SECONDS:
            break
        took, slim = timed(ours, model, inputs)
        seconds["slimnet"].append(took)
        took, rival = timed(theirs, copy.deepcopy(model), inputs)
        seconds["torch_pruning"].append(took)
    result: dict[str, Any] = {"seconds": seconds}
    if isinstance(rival, str):
        result["torch_pruning_failed"] = rival[:160]
    else:
        fresh = images(name, 2)
        expected = outputs(model, fresh)
        result["torch_pruning_params"] = sum(parameter.numel() for parameter in rival.parameters())
        try:
            result["torch_pruning_error"] = relative(expected, outputs(rival, fresh))
        except RuntimeError as error:
            result["torch_pruning_failed"] = f"its network does not run: {str(error).splitlines()[0]}"[:160]
    result["slimnet_params"] = sum(parameter.numel() for parameter in slim.parameters())
    result["ratio"] = statistics.median(seconds["slimnet"]) / statistics.median(seconds["torch_pruning"])
    return result


def memory(name: str) -> dict[str, float]:
    """The dense network's size, and the most that slimming it takes with the dense network counted in, in bytes."""
    model, inputs = network(name), images(name, 1)
    scatter_dead(model, images(name, 3), FRACTION, "negative")
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, code = resident("VmRSS"), resident("RssFile")
    slimnet.slim(model, inputs, THRESHOLD, tolerance=float("inf"))
    peak = size + resident("VmHWM") - before
    code = resident("RssFile") - code
    return {"model": size, "peak": peak, "code": code, "ratio": peak / size, "own_ratio": (peak - code) / size}


def memory_elsewhere(name: str) -> dict[str, float]:
    """`memory` in a process of its own, where nothing that ran before has left memory to be used again."""
    command = [sys.executable, __file__, "--memory", name]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def resident(field: str) -> int:
    """A figure of the process's resident memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def raced(race: dict[str, Any]) -> tuple[str, str]:
    """What slimnet took, in seconds, and the ratio to torch-pruning's time."""
    ratio = "crash" if "torch_pruning_failed" in race else f"{race['ratio']:.2f}"
    return f"{statistics.median(race['seconds']['slimnet']):.2f}", ratio


def table(results: dict[str, Any]) -> str:
    """A line for each network, and what they come to."""
    headings = ("error, beta zero/negative/random", "removed", "seconds", "ratio")
    lines = ["{:28s} {:>34s} {:>20s} {:>8s} {:>6s} memory, own".format("network", *headings)]
    complete = {name: row for name, row in sorted(results["networks"].items()) if set(row) | {"race"} == set(PARTS)}
    for name, row in complete.items():
        errors = " / ".join(f"{row[beta]['error']:.0e}" for beta in BETAS)
        removed = " / ".join(str(row[beta]["removed"]) for beta in BETAS)
        seconds, ratio = raced(row["race"]) if "race" in row else ("–", "–")
        memory = f"{row['memory']['ratio']:.2f}  {row['memory']['own_ratio']:.2f}"
        lines.append(f"{name:28s} {errors:>34s} {removed:>20s} {seconds:>8s} {ratio:>6s} {memory}")
    lines += summary(complete)
    return "\n".join(lines)


def summary(complete: dict[str, Any]) -> list[str]:
    """What the lines of all networks come to."""
    lines = []
    races = [row["race"] for row in complete.values() if "race" in row]
    ratios = [race["ratio"] for race in races if "torch_pruning_failed" not in race]
    wrong = sum(1 for race in races if (race.get("torch_pruning_error") or 0) > 1e-3)
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        lines.append(
            f"{len(races)} networks; torch-pruning crashes on {len(races) - len(ratios)} and is wrong by more than "
            f"1e-3 on {wrong}; slimnet takes {mean:.2f} of its time in the geometric mean of the other {len(ratios)}, "
            f"{min(ratios):.2f} to {max(ratios):.2f}, more than its time on {sum(ratio > 1 for ratio in ratios)}"
        )
    over = [sum(row["memory"][key] > MOST_MEMORY for row in complete.values()) for key in ("ratio", "own_ratio")]
    lines.append(f"memory over {MOST_MEMORY} times the network on {over[0]}, on {over[1]} without library files")
    return lines


PARTS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    **{beta: lambda name, _, beta=beta: exactness(name, beta) for beta in BETAS},
    "race": race,
    "memory": lambda name, _: memory_elsewhere(name),
}
"""What is measured on each network, given its name and the number of repeats."""


def read(path: Path) -> dict[str, Any]:
    """The results so far."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"networks": {}}
    return found


def main() -> None:
    """Run what is missing, saying how far it is, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", choices=PARTS, action="append", help="run this part only (repeatable)")
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "surgery_speed.json")
    parser.add_argument("--memory", metavar="NAME", help="print the memory that slimming one network takes, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(memory(options.memory)))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    wanted = [] if options.table else options.names or [*classifiers(), *SEGMENTATION]
    parts = options.part or list(PARTS)
    done = read(options.out)["networks"]
    missing = [(name, part) for name in wanted for part in parts if part not in done.get(name, {})]
    for number, (name, part) in enumerate(missing, 1):
        print(f"{number}/{len(missing)} {name}: {part}", file=sys.stderr, flush=True)
        found = PARTS[part](name, options.repeats)
        results = read(options.out)
        results["networks"].setdefault(name, {})[part] = found
        results["environment"] = dict(environment().rows())
        results["settings"] = {"dead": FRACTION, "seed": 0, "repeats": options.repeats, "threads": 1, "image": 64}
        write(options.out, results)
    print(table(read(options.out)))


if __name__ == "__main__":
    main()

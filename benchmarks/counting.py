"""What fvcore and slimnet count differently, by operator: networks of torchvision, and of timm where it is installed.

Three numbers for each network, of multiply-accumulates of convolutions and linear layers for one image: fvcore's as it
is installed, fvcore's with the operators that slimnet adds (what slimnet prints), and the planner's, which counts on
meta tensors. `torch` is the number of torch's own counter of operations, which counts where fvcore cannot trace.

    python benchmarks/counting.py                  # a few minutes; writes results/counting.json
    python benchmarks/tables.py                    # and the tables from the results
"""

import argparse
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.benchmark import environment
from slimnet.compat import fvcore, timm, torchvision
from slimnet.counting import NetworkCounts, count_network
from slimnet.counting.network_counts import by_torch
from slimnet.counting.operators import LAYERS, WITHOUT_MACS
from slimnet.errors import SlimnetError
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.silence import silenced
from slimnet.tracing.trace import trace

RESULTS = Path(__file__).parent / "results" / "counting.json"
PRODUCTS = ("matmul", "einsum", "attention")
LARGEST = 25e6
"""Networks with more parameters are left out: they are wider or deeper copies of others."""

TIMM = (
    *(
        "vit_tiny_patch16_224",
        "mixer_s32_224",
        "coat_tiny",
        "botnet26t_256",
        "lambda_resnet26t",
        "xcit_nano_12_p16_224",
    ),
    *("nfnet_f0", "skresnet18", "res2net50_26w_4s", "efficientformer_l1", "levit_128s", "hrnet_w18_small", "dla34"),
    *("mobilevit_xxs", "eca_resnet33ts", "resnest14d", "tresnet_m", "convmixer_768_32", "edgenext_xx_small"),
    *("ghostnet_100", "poolformer_s12", "cspresnet50", "repvgg_a0", "mobilenetv4_conv_small", "tf_efficientnetv2_b0"),
)


@dataclass(frozen=True)
class Row:
    """One network: its MACs by each counter, None where it cannot; and what fvcore alone does not know."""

    name: str
    fvcore: int | None
    slimnet: int
    plan: int | None
    torch: int
    counted_by: str
    unknown: dict[str, int]
    products: dict[str, int]


def count(name: str, model: nn.Module, example: torch.Tensor) -> Row:
    """The row of one network."""
    found = count_network(model, example)
    alone, unknown = installed(model, example)
    try:
        plan = trace(model, Inputs.of(example)).macs
    except SlimnetError:
        plan = None
    own = by_torch(model, Inputs.of(example), "")
    return Row(name, alone, found.macs, plan, own.macs, found.counted_by, unknown, products(found))


def installed(model: nn.Module, example: torch.Tensor) -> tuple[int | None, dict[str, int]]:
    """The MACs of layers by fvcore without any addition, and the calls of operators that it does not know."""
    with silenced():
        analysis = fvcore().FlopCountAnalysis(model, example).uncalled_modules_warnings(False)
        counts = analysis.unsupported_ops_warnings(False).by_operator()
    unknown = {name: calls for name, calls in analysis.unsupported_ops().items() if name not in WITHOUT_MACS}
    return int(sum(counts.get(name, 0) for name in LAYERS)), unknown


def products(found: NetworkCounts) -> dict[str, int]:
    """The MACs that are no layers': products of activations."""
    return {name: found.by_operator[name] for name in PRODUCTS if name in found.by_operator}


def torchvision_networks() -> list[str]:
    """The classification networks of torchvision that are small enough, and one with torch's fused attention."""
    models = torchvision().models
    names = models.list_models(module=models)
    small = [name for name in names if models.get_model_weights(name).DEFAULT.meta["num_params"] <= LARGEST]
    return [*small, "vit_b_16"]


def rows() -> list[Row]:
    """Every network, one after the other."""
    models, found = torchvision().models, []
    for name in torchvision_networks():
        found.append(count(name, models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)))
        print(found[-1].name, found[-1].counted_by, flush=True)
    for name in TIMM:
        model = timm().create_model(name).eval()
        size = model.default_cfg["input_size"]
        found.append(count(f"timm:{name}", model, torch.randn(1, *size)))
        print(found[-1].name, found[-1].counted_by, flush=True)
    return found


def table(results: dict[str, Any]) -> str:
    """How many networks agree, and those that do not, with the operators that fvcore lacks."""
    found = results["rows"]
    alike = [row for row in found if row["slimnet"] == row["plan"] and row["counted_by"].startswith("fvcore")]
    lines = [
        f"{len(found)} networks; fvcore traces {sum(row['counted_by'].startswith('fvcore') for row in found)} of them, "
        f"and with the added operators it counts what the planner counts on {len(alike)}. Those on which not all four "
        "agree:",
        "",
        "| network | fvcore | with slimnet's operators | planner | torch | operators that fvcore lacks |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in found:
        counts = [row[name] for name in ("fvcore", "slimnet", "plan", "torch")]
        if len(set(counts)) > 1:
            unknown = ", ".join(f"{name} × {calls}" for name, calls in row["unknown"].items())
            cells = ("–" if count is None else f"{count:,}" for count in counts)
            lines.append(f"| {row['name']} | {' | '.join(cells)} | {unknown or 'a product with a weight'} |")
    lines += ["", "Products of activations, which are in no MACs of layers, by fvcore's names:", ""]
    lines += ["| network | matmul | einsum | attention |", "|---|---:|---:|---:|"]
    for row in found:
        if row["products"]:
            cells = (f"{row['products'][name]:,}" if name in row["products"] else "" for name in PRODUCTS)
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Count all networks and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    logging.getLogger("timm").setLevel(logging.ERROR)
    with torch.no_grad():
        document = {"environment": asdict(environment()), "rows": [asdict(row) for row in rows()]}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What has to be right on a GPU: each check gives numbers, and says whether they are as small as they have to be.

Outputs may differ by the tolerance of a certificate, or, where that is more, by twice what rounding alone does to the
network, which is measured against double precision: networks with random weights are rougher than trained ones. In
bfloat16 it is 0.2 of the largest output for a ResNet-50, and no slim network could be nearer than that.
"""

import dataclasses
import math
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import train_throughput
import zoo
from torch import nn

import slimnet
from slimnet.benchmark import Settings, compare
from slimnet.benchmark.runtimes.torch_graph import graph_run
from slimnet.modules.copying import shared_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.surgery.equivalence import TOLERANCE, TOLERANCES
from slimnet.surgery.network_comparison import as_double, masked_scales
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.precision import float32_products
from slimnet.training import Recipe, train
from slimnet.training.loop.checkpoint_file import weights_of
from slimnet.training.recipe.machine_settings import Tuning

NETWORKS = (
    "basicnet",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
    "vgg16",
    "resnet56",
    "torchvision:resnet50",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:regnet_y_400mf",
)
CAPTURED = ("adam", "sgd", "amsgrad", "adamax", "adadelta", "rmsprop")
"""The optimisers whose steps a CUDA graph can hold."""

GENTLE = {"adam": 1e-4, "sgd": 1e-3, "amsgrad": 1e-4, "adamax": 2e-4, "adadelta": 0.1, "rmsprop": 1e-5}
"""Learning rates under which rounding moves no tensor by more than 0.012 of its way in 16 steps.

At the usual ones it is all of the way after 60 steps, whatever is right or wrong. A drop or a weight decay that is left
out is 0.7 or more.
"""
WAY = {"fp32": 0.1, "bf16": 0.5}
"""How much of the way that training takes a tensor two runs may be apart; in bfloat16 rounding alone is 0.23."""

TINY = {"basicnet": {"width": 0.125, "hidden": 16}}
Found = dict[str, Any]
Weights = dict[str, torch.Tensor]


class Subject:
    """A network with 40 % of its channels dead, on a device, and what slimming makes of it."""

    def __init__(self, name: str, device: str, *, tiny: bool = False) -> None:
        self.name, self.device, self.tiny = name, device, tiny

    @cached_property
    def on_cpu(self) -> nn.Module:
        """The dense network where it was made."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = slimnet.build(self.name, TINY.get(self.name, {}) if self.tiny else {}).eval()
        zoo.scatter_dead(model, self._images(8), 0.4, "random")
        return model

    @cached_property
    def dense(self) -> nn.Module:
        """A copy on the device."""
        return self.copied()

    def copied(self) -> nn.Module:
        """A dense network of one's own, on the device."""
        return slimnet.modules.copying.copy_with(self.on_cpu, lambda _, tensor: tensor.detach().clone()).to(self.device)

    @cached_property
    def images(self) -> torch.Tensor:
        """Inputs on the device."""
        return self._images(4 if self.tiny else 8).to(self.device)

    def _images(self, batch: int) -> torch.Tensor:
        return zoo.images(self.name, batch, 64 if self.name.startswith("torchvision:") else 32)

    @cached_property
    def slimmed(self) -> slimnet.Slimmed:
        """The pipeline's result in float32."""
        return slimnet.slim(self.dense, self.images, tolerance=math.inf, float64=True)

    @cached_property
    def masked(self) -> nn.Module:
        """The dense network with every γ that the plan relies on set to exactly zero."""
        return shared_copy(self.dense, masked_scales(self.dense, self.slimmed.plan))

    @cached_property
    def roughness(self) -> float:
        """What rounding to float32 does to the masked network's outputs, relative to the largest."""
        with float32_products(tf32=False):
            return roughness(self.masked, self.images)


def roughness(model: nn.Module, images: torch.Tensor) -> float:
    """How far a network's outputs are from those in double precision, relative to the largest."""
    exact = zoo.outputs(as_double(model), images.double())
    return zoo.relative(exact, zoo.outputs(model, images)) or 0.0


def judged(error: float | None, tolerance: float, rounding: float = 0.0, **more: Any) -> Found:
    """An error with its limit, and whether it is within."""
    limit = max(tolerance, 2 * rounding)
    holds = error is not None and error <= limit
    return {"error_relative": error, "tolerance": limit, "rounding_alone": rounding, "holds": holds, **more}


def same_plan(ours: SurgeryPlan, other: SurgeryPlan) -> bool:
    """Whether two plans do the same; numbers that are sums may have been added up in another order."""
    bare = [dataclasses.replace(each, folds=(), merges=()) for each in (ours, other)]
    numbers = [
        [*(fold.increments for fold in plan.folds), *(merge.ratios for merge in plan.merges)] for plan in (ours, other)
    ]
    return (
        bare[0] == bare[1]
        and list(map(len, numbers[0])) == list(map(len, numbers[1]))
        and all(
            math.isclose(one, same, rel_tol=1e-9, abs_tol=1e-12)
            for left, right in zip(*numbers, strict=True)
            for one, same in zip(left, right, strict=True)
        )
    )


def fp32(subject: Subject) -> Found:
    """Slim against masked and dense in float32 and float64, and the plan against that made on the CPU."""
    proof = subject.slimmed.certificate
    on_cpu = slimnet.slim(subject.on_cpu, subject.images.cpu(), tolerance=math.inf).plan
    return judged(
        proof.masked_max_rel_difference,
        TOLERANCE,
        subject.roughness,
        removed=subject.slimmed.plan.removed_channels,
        same_plan_as_on_the_cpu=same_plan(on_cpu, subject.slimmed.plan),
        certificate=dataclasses.asdict(proof),
    )


def fp64(subject: Subject) -> Found:
    """The same two in double precision, where nothing hides behind rounding."""
    return judged(subject.slimmed.certificate.float64_max_rel_difference, 1e-5)


def tf32(subject: Subject) -> Found:
    """The same with factors rounded to 10 bits, as a GPU does by default in convolutions."""
    with float32_products(tf32=True):
        expected, actual = (zoo.outputs(each, subject.images) for each in (subject.masked, subject.slimmed.model))
        rounding = roughness(subject.masked, subject.images)
    return judged(zoo.relative(expected, actual), TOLERANCES[torch.float16], rounding)


def bf16(subject: Subject) -> Found:
    """The pipeline on a network in bfloat16."""
    return short(subject, torch.bfloat16)


def fp16(subject: Subject) -> Found:
    """The pipeline on a network in float16."""
    return short(subject, torch.float16)


def short(subject: Subject, dtype: torch.dtype) -> Found:
    """The pipeline in a short type."""
    model, images = subject.copied().to(dtype), subject.images.to(dtype)
    slimmed = slimnet.slim(model, images, tolerance=math.inf)
    rounding = roughness(shared_copy(model, masked_scales(model, slimmed.plan)), images)
    proof = slimmed.certificate
    return judged(proof.masked_max_rel_difference, TOLERANCES[dtype], rounding, to_dense=proof.max_rel_difference)


def channels_last(subject: Subject) -> Found:
    """The pipeline on a network that lies in memory channels last, as the slim one then has to."""
    model = subject.copied().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = subject.images.contiguous(memory_format=torch.channels_last)
    slimmed = slimnet.slim(model, images, tolerance=math.inf)
    weights = [each for each in slimmed.model.parameters() if each.ndim == 4]
    kept = all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)
    error = slimmed.certificate.masked_max_rel_difference
    return judged(error, TOLERANCE, subject.roughness, slim_lies_channels_last=kept)


def activation(subject: Subject) -> Found:
    """Channels dead by activation on a loader whose batches are on the CPU."""
    loader = [(subject.images.cpu(), torch.zeros(len(subject.images), dtype=torch.int64))]
    slimmed = slimnet.slim(subject.dense, subject.images, criterion="activation", loader=loader, tolerance=math.inf)
    proof = slimmed.certificate
    return judged(proof.masked_max_rel_difference, TOLERANCE, subject.roughness, removed=slimmed.plan.removed_channels)


def cuda_graph(subject: Subject) -> Found:
    """The slim network replayed from a CUDA graph, on inputs that came after the capture."""
    if subject.device == "cpu":
        return {"skipped": "a CPU has no CUDA graphs"}
    place = subject.images.clone()
    with torch.inference_mode(), float32_products(tf32=False), torch.cuda.device(subject.device):
        replay = graph_run(subject.slimmed.model, Inputs.of(place))
        place.copy_(subject.images.flip(0))
        replayed: Any = replay()
        expected = subject.masked(place)
    return judged(zoo.relative(expected.double(), replayed.double()), TOLERANCE, subject.roughness)


def bundle(subject: Subject) -> Found:
    """Save, verify against the network on the device that it was made from, and load.

    That is the masked network: of the dense one the dead γ are not small enough for a bundle.
    """
    with tempfile.TemporaryDirectory() as folder:
        slimmed = slimnet.slim(subject.masked, subject.images)
        place = slimnet.save(slimmed, Path(folder) / "bundle")
        verification = slimnet.verify_bundle(place, dense=subject.masked)
        again = slimnet.load(place).to(subject.device)
        with float32_products(tf32=False):
            expected, actual = (zoo.outputs(each, subject.images) for each in (slimmed.model, again))
    return judged(zoo.relative(expected, actual), TOLERANCE, forms=dict(verification.differences))


def onnx(subject: Subject) -> Found:
    """Export from the device, and check under onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        export = slimnet.export_onnx(subject.slimmed.model, subject.images, Path(folder) / "slim.onnx")
    return judged(export.max_rel_difference, TOLERANCE, opset=export.opset, bytes=export.size_bytes)


def benchmark(subject: Subject) -> Found:
    """Latency and memory of dense and slim in every runtime that is there."""
    settings = Settings(batches=(1,), threads=1, seconds=0.02 if subject.tiny else 0.3, devices=(subject.device,))
    found = compare({"dense": subject.dense, "slim": subject.slimmed.model}, subject.images[:1], settings)
    return {
        "median_ms": {each.label: [each.median_ms(0), each.median_ms(1)] for each in found.latencies},
        "speedup": {each.label: dataclasses.asdict(each.speedup()) for each in found.latencies},
        "peak_bytes": [list(each.peak_bytes) for each in found.memories],
    }


CHECKS = (fp32, fp64, tf32, bf16, fp16, channels_last, activation, cuda_graph, benchmark, bundle, onnx)
SLOW = (bundle, onnx)
"""What takes seconds for each network, and is done for the first three of them."""


def recipe(steps: int, **settings: Any) -> Recipe:
    """A short run on noise."""
    usual = {"flips": True, "crop": 2, "l2": 1e-3, "drops": (steps // 2,), "batch_size": 32, "weight_decay": 1e-4}
    usual["lr"] = GENTLE[settings.get("optimiser", "adam")]
    return Recipe(arch="basicnet", arch_args={"width": 0.125}, data="noise", iterations=steps, **{**usual, **settings})


@dataclasses.dataclass(frozen=True)
class Trained:
    """The weights and statistics of a network before and after a run, on the CPU."""

    before: Weights
    after: Weights

    def apart(self, other: "Trained") -> float:
        """How far another run ended from here, over the way that this one took: of the tensor where that is most."""
        return max(distance(end, other.after[name]) / distance(end, self.before[name]) for name, end in self.moved)

    @property
    def moved(self) -> list[tuple[str, torch.Tensor]]:
        """The tensors that training changed at all."""
        return [(name, end) for name, end in self.after.items() if distance(end, self.before[name])]


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    """The length of the difference of two tensors."""
    return float((left.double() - right.double()).norm())


def trained(plan: Recipe, device: str, state: Any = None, **tuning: Any) -> Trained:
    """Make a run, or what is left of it."""
    run = train(plan, train_throughput.noise(), device=device, tuning=Tuning(**tuning), state=state)
    before = weights_of(run.model)
    for _ in run:
        pass
    return Trained(before, weights_of(run.model))


def captured(device: str, optimiser: str, steps: int) -> Found:
    """A step replayed from a CUDA graph against the same steps kernel by kernel."""
    if device == "cpu":
        return {"skipped": "a CPU has no CUDA graphs"}
    plan = recipe(steps, optimiser=optimiser)
    graph, plain = (trained(plan, device, cuda_graph=each) for each in (True, False))
    return judged(plain.apart(graph), WAY["fp32"])


def resumed(device: str, precision: str, steps: int) -> Found:
    """A run that was interrupted half way against one that was not: equal but for what kernels do not repeat."""
    plan = recipe(steps, precision=precision)
    run = train(plan, train_throughput.noise(), device=device, every=steps // 2)
    next(run)
    again, whole = trained(plan, device, state=run.state()), trained(plan, device)
    error = whole.apart(again)
    return judged(error, WAY[precision], bit_for_bit=error == 0)


def as_on_the_cpu(device: str, steps: int) -> Found:
    """The same steps of SGD on the device and on the CPU."""
    plan = recipe(steps, optimiser="sgd")
    return judged(trained(plan, "cpu").apart(trained(plan, device)), WAY["fp32"])

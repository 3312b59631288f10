"""What has to be right on a GPU: each check gives numbers, and says whether they are as small as they have to be."""

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
from slimnet.benchmark.runs import graph_run
from slimnet.certify import masked_scales
from slimnet.formats.agreement import TOLERANCE, TOLERANCES
from slimnet.inputs import Inputs
from slimnet.places import float32_products
from slimnet.skeleton import shared_copy
from slimnet.training import Recipe, train
from slimnet.training.tuning import Tuning

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

TINY = {"basicnet": {"width": 0.125, "hidden": 16}}
Found = dict[str, Any]


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
        return slimnet.skeleton.copy_with(self.on_cpu, lambda _, tensor: tensor.detach().clone()).to(self.device)

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
        """The dense network with every dead γ set to exactly zero."""
        return shared_copy(self.dense, masked_scales(self.dense, self.slimmed.plan))


def judged(error: float | None, tolerance: float, **more: Any) -> Found:
    """An error with its limit, and whether it is within."""
    return {"error_relative": error, "tolerance": tolerance, "holds": error is not None and error <= tolerance, **more}


def fp32(subject: Subject) -> Found:
    """Slim against masked and dense in float32 and float64, and the plan against that made on the CPU."""
    proof = subject.slimmed.certificate
    on_cpu = slimnet.slim(subject.on_cpu, subject.images.cpu(), tolerance=math.inf).plan
    return judged(
        proof.masked_max_rel_difference,
        TOLERANCE,
        removed=subject.slimmed.plan.removed_channels,
        same_plan_as_on_the_cpu=on_cpu == subject.slimmed.plan,
        certificate=dataclasses.asdict(proof),
    )


def tf32(subject: Subject) -> Found:
    """The same with factors rounded to 10 bits, as a GPU does by default in convolutions."""
    with float32_products(tf32=True):
        expected, actual = (zoo.outputs(each, subject.images) for each in (subject.masked, subject.slimmed.model))
    return judged(zoo.relative(expected, actual), TOLERANCES[torch.float16])


def bf16(subject: Subject) -> Found:
    """The pipeline on a network in bfloat16."""
    return short(subject, torch.bfloat16)


def fp16(subject: Subject) -> Found:
    """The pipeline on a network in float16."""
    return short(subject, torch.float16)


def short(subject: Subject, dtype: torch.dtype) -> Found:
    """The pipeline in a short type."""
    model, images = subject.copied().to(dtype), subject.images.to(dtype)
    proof = slimnet.slim(model, images, tolerance=math.inf).certificate
    return judged(proof.masked_max_rel_difference, TOLERANCES[dtype], to_dense=proof.max_rel_difference)


def channels_last(subject: Subject) -> Found:
    """The pipeline on a network that lies in memory channels last, as the slim one then has to."""
    model = subject.copied().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = subject.images.contiguous(memory_format=torch.channels_last)
    slimmed = slimnet.slim(model, images, tolerance=math.inf)
    weights = [each for each in slimmed.model.parameters() if each.ndim == 4]
    kept = all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)
    return judged(slimmed.certificate.masked_max_rel_difference, TOLERANCE, slim_lies_channels_last=kept)


def activation(subject: Subject) -> Found:
    """Channels dead by activation on a loader whose batches are on the CPU."""
    loader = [(subject.images.cpu(), torch.zeros(len(subject.images), dtype=torch.int64))]
    slimmed = slimnet.slim(subject.dense, subject.images, criterion="activation", loader=loader, tolerance=math.inf)
    proof = slimmed.certificate
    return judged(proof.masked_max_rel_difference, TOLERANCE, removed=slimmed.plan.removed_channels)


def cuda_graph(subject: Subject) -> Found:
    """The slim network replayed from a CUDA graph, on inputs that came after the capture."""
    if subject.device == "cpu":
        return {"skipped": "a CPU has no CUDA graphs"}
    place = subject.images.clone()
    with torch.inference_mode(), float32_products(tf32=False):
        replay = graph_run(subject.slimmed.model, Inputs.of(place))
        place.copy_(subject.images.flip(0))
        replayed: Any = replay()
        expected = subject.masked(place)
    return judged(zoo.relative(expected.double(), replayed.double()), TOLERANCE)


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


CHECKS = (fp32, tf32, bf16, fp16, channels_last, activation, cuda_graph, benchmark, bundle, onnx)
SLOW = (bundle, onnx)
"""What takes seconds for each network, and is done for the first three of them."""


def recipe(steps: int, **settings: Any) -> Recipe:
    """A short run on noise."""
    usual = {"flips": True, "crop": 2, "l2": 1e-3, "drops": (steps // 2,), "batch_size": 8}
    return Recipe(arch="basicnet", arch_args={"width": 0.125}, data="noise", iterations=steps, **{**usual, **settings})


def trained(plan: Recipe, device: str, state: Any = None, **tuning: Any) -> dict[str, torch.Tensor]:
    """The weights after a run, on the CPU."""
    run = train(plan, train_throughput.noise(), device=device, tuning=Tuning(**tuning), state=state)
    for _ in run:
        pass
    return {name: tensor.detach().cpu() for name, tensor in run.model.state_dict().items()}


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of two networks' weights, over the largest weight of each tensor."""
    differences = [
        ((left.double() - right.double()).abs().max() / left.double().abs().max().clamp_min(1e-3)).item()
        for left, right in zip(first.values(), second.values(), strict=True)
    ]
    return max(differences)


def captured(device: str, optimiser: str, steps: int) -> Found:
    """A step replayed from a CUDA graph against the same steps kernel by kernel."""
    if device == "cpu":
        return {"skipped": "a CPU has no CUDA graphs"}
    plan = recipe(steps, optimiser=optimiser, weight_decay=1e-4)
    graph, plain = (trained(plan, device, cuda_graph=each) for each in (True, False))
    return judged(apart(plain, graph), 1e-2)


def resumed(device: str, precision: str, steps: int) -> Found:
    """A run that was interrupted half way against one that was not: equal but for what kernels do not repeat."""
    plan = recipe(steps, precision=precision)
    run = train(plan, train_throughput.noise(), device=device, every=steps // 2)
    next(run)
    again, whole = trained(plan, device, state=run.state()), trained(plan, device)
    error = apart(whole, again)
    return judged(error, 1e-2, bit_for_bit=error == 0)


def as_on_the_cpu(device: str, steps: int) -> Found:
    """The same steps of SGD on the device and on the CPU."""
    plan = recipe(steps, optimiser="sgd", lr=0.01)
    return judged(apart(trained(plan, "cpu"), trained(plan, device)), 1e-2)

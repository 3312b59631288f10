"""The ResNet-56 of resnet56_curves.py, its data, and how networks made from it are corrected and judged."""

import copy
import itertools
import sys
from typing import Any

import rivals
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import slimnet
from slimnet.data import load_data
from slimnet.data.normalisation import normalised
from slimnet.methods import Ranking, score_channels, synthesise_images
from slimnet.methods.batchnorm_measure import ENOUGH
from slimnet.training import Recipe, TrainingRun

ARCH = "resnet56"
DOUBT = 0.05
"""Where two scores are closer than this share of the largest one, bfloat16 is not trusted to tell them apart."""
PLAIN = ", plain"
"""Behind the name of a method: what it chooses is removed as its paper does, and no BatchNorm is re-estimated."""
MEASURED = ", measured"
"""Behind the name of a method: BatchNorms are measured on some training images, without labels."""
FITTED, MADE = ", fitted", ", fitted without data"
"""Behind the name of a method: weights are fitted on some training images, without labels, or on images made here."""
BEHIND = (PLAIN, MEASURED, FITTED, MADE)


class Bench:
    """The network, its data, and how a slim network is judged."""

    def __init__(self, checkpoint: str, data: str, recipe: Recipe, longer: Recipe, *, float32: bool = False) -> None:
        self.model = slimnet.load_checkpoint(checkpoint, ARCH).eval()
        self.data = normalised(load_data(data), "imagenet")
        self.recipe, self.longer, self.float32 = recipe, longer, float32
        self.inputs, _ = next(self.data.batches("test", 8))
        self.macs = rivals.counted(self.model, self.inputs[:1])

    def error(self, model: nn.Module) -> float:
        """The share of the test images that are classified wrongly."""
        return float((self.predictions(model) != self.data.y_test).double().mean())

    @torch.no_grad()
    def predictions(self, model: nn.Module) -> torch.Tensor:
        """The class of every test image `(N,)`: in bfloat16 where that is beyond doubt, else in float32."""
        if self.float32:
            return self.certain_predictions(model)
        model, quick = model.eval(), in_bfloat16(model)
        found = []
        for images, _ in self.data.batches("test", 200):
            scores = quick(images.bfloat16()).float()
            best = scores.topk(2, dim=1).values
            doubtful = best[:, 0] - best[:, 1] < DOUBT * scores.abs().amax()
            if doubtful.any():
                scores[doubtful] = model(images[doubtful])
            found.append(scores.argmax(1))
        return torch.cat(found)

    @torch.no_grad()
    def certain_predictions(self, model: nn.Module) -> torch.Tensor:
        """The class of every test image `(N,)`, all in float32."""
        return torch.cat([model.eval()(images).argmax(1) for images, _ in self.data.batches("test", 50)])

    def finetuned(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        """The network after a fine-tuning."""
        run = TrainingRun(recipe, self.data, model=model)
        for progress in run:
            print(f"  {progress.iteration}/{progress.total}, loss {progress.loss:.3f}", file=sys.stderr, flush=True)
        return run.model.eval()

    def ranking(self, method: str) -> Ranking:
        """What a method thinks of the channels; taylor looks at 512 training images."""
        batches = itertools.islice(self.data.batches("train", 64), 8)
        return score_channels(method, self.model, self.inputs, batches=batches)

    def correction(self, method: str) -> dict[str, Any]:
        """How the slim network makes up for what was removed, as arguments of `remove_selected`."""
        if method.endswith(PLAIN):
            return {"recalibrate": False}
        if method.endswith(MADE):
            return {"images": synthesise_images(self.model, self.inputs), "refit": True}
        shown = self.data.sample(ENOUGH) if method.endswith((MEASURED, FITTED)) else None
        return {"images": shown, "refit": method.endswith(FITTED)}


def bare(method: str) -> str:
    """The name of a method without what is behind it."""
    return method.partition(",")[0] if method.endswith(BEHIND) else method


def in_bfloat16(model: nn.Module) -> nn.Module:
    """A copy with BatchNorm folded into the convolutions, in bfloat16."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        for number in ("1", "2"):
            names = f"conv{number}", f"bn{number}"
            if all(isinstance(getattr(module, name, None), nn.Module) for name in names):
                conv, norm = (getattr(module, name) for name in names)
                setattr(module, names[0], fuse_conv_bn_eval(conv, norm))
                setattr(module, names[1], nn.Identity())
    return model.to(torch.bfloat16)

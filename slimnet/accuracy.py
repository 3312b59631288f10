"""Accuracy: the share of labelled images that are classified correctly, counted batch by batch."""

from dataclasses import dataclass

import torch

from slimnet.storage.field_types import Share, Size

TOP = 5


@dataclass(frozen=True)
class Accuracy:
    """Shares of `n` images, 0..1, whose class had the best score, or one of the five best."""

    top1: Share
    top5: Share
    n: Size


@dataclass
class Hits:
    """A running count of images whose class had the best score, or one of the five best."""

    best: int = 0
    five: int = 0
    n: int = 0

    def add(self, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: scores `(N, classes)`, labels `(N,)`. With fewer than five classes all are among the best."""
        hits = scores.topk(min(TOP, scores.shape[1]), dim=1).indices == labels[:, None]
        self.best += int(hits[:, 0].sum())
        self.five += int(hits.sum())
        self.n += len(labels)

    @property
    def accuracy(self) -> Accuracy | None:
        """The shares of what was counted; None where nothing was."""
        return Accuracy(self.best / self.n, self.five / self.n, self.n) if self.n else None

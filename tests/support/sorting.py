"""A network that returns boxes sorted by score, as detectors without NMS do."""

import torch
from torch import nn


class BestBoxes(nn.Module):
    """The boxes of the twenty positions with the highest scores, best first.

    Scores have `levels` different values, so that many are equal. Without levels they are 1 and a hundred times the
    difference of two numbers that are equal but for rounding.
    """

    def __init__(self, levels: int | None = 4, *, sort: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.score, self.box = nn.Conv2d(8, 1, 1, bias=False), nn.Conv2d(8, 4, 1)
        self.again = nn.Conv2d(8, 1, 1, bias=False)
        self.again.load_state_dict(self.score.state_dict())
        self.levels, self.sort = levels, sort

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.features(images)
        raw = self.score(found).flatten(1)
        if self.levels is None:
            scores = 1 + 100 * (raw - self.again(3 * found).flatten(1) / 3)
        else:
            scores = (raw.sigmoid() * self.levels).round()
        boxes = self.box(found).flatten(2).transpose(1, 2)
        best = scores.sort(dim=1, descending=True) if self.sort else scores.topk(20, dim=1)
        return boxes.gather(1, best.indices[:, :20, None].expand(-1, -1, 4))


def with_dead_channels(network: BestBoxes, count: int) -> BestBoxes:
    """The network in evaluation mode, with so many dead channels in front of scores and boxes."""
    with torch.no_grad():
        network.features[1].weight[:count] = 0
        network.features[1].bias[:count] = 0.5
    return network.eval()

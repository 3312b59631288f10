"""Training as the paper means it: recipes, the loop, and what is measured along the way."""

from slimnet.training.analysis import Analysis, LayerAnalysis, analyse
from slimnet.training.loop import TrainingRun, train
from slimnet.training.metrics import Accuracy, batchnorm_scales, evaluate, sparsity_by_gamma
from slimnet.training.progress import Progress, Snapshot
from slimnet.training.recipe import DIGITS_DEMO, Recipe
from slimnet.training.saving import save_checkpoint

__all__ = [
    "DIGITS_DEMO",
    "Accuracy",
    "Analysis",
    "LayerAnalysis",
    "Progress",
    "Recipe",
    "Snapshot",
    "TrainingRun",
    "analyse",
    "batchnorm_scales",
    "evaluate",
    "save_checkpoint",
    "sparsity_by_gamma",
    "train",
]

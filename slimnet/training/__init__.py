"""Training as in the paper: recipes, the loop, and the measurements during training."""

from slimnet.training.analysis.metrics import Accuracy, batchnorm_scales, evaluate, sparsity_by_gamma
from slimnet.training.analysis.universality import Analysis, LayerAnalysis, analyse
from slimnet.training.loop.checkpoint_file import save_checkpoint
from slimnet.training.loop.progress import Progress, Snapshot
from slimnet.training.loop.training_run import TrainingRun, train
from slimnet.training.recipe.recipe import DIGITS_DEMO, Recipe

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

"""Messages of the library name arguments of Python; on the command line they name the options instead."""

import re

OPTIONS = {
    "arch=": "--arch",
    "batches=": "--data",
    "calibration_images=": "--calibration-images",
    "dense=": "--dense",
    "dynamic_size=": "--dynamic-size",
    "finetuning.batch_size": "--batch-size",
    "finetuning.iterations": "--finetune",
    "finetuning.optimiser": "--optimiser",
    "finetuning.crop": "--crop",
    "finetuning.l2": "--l2",
    "finetuning.lr": "--lr",
    "images=": "--normalise",
    "keep=": "--keep",
    "loader=": "--data",
    "model=": "--arch",
    "overwrite=True": "--force",
    "refit=": "--refit",
    "round_to=None": "--round none",
    "round_to=": "--round",
    "sparsifying.iterations": "--sparsify",
    "sparsifying.l1_gamma": "--l1",
    "tolerance=": "--tolerance",
    "trust=True, or Recipe.trusted()": "--trust, or name it with --arch",
    "trust=True": "--trust",
    "weights=": "--weights",
}
"""The arguments in messages of the library, and the options that give them."""

_ARGUMENT = re.compile("|".join(rf"(?<![\w/.=-]){re.escape(name)}(?![\w/'\"{{\[(])" for name in OPTIONS))


def with_options(text: str) -> str:
    """A message with each argument of Python replaced by its option."""
    return _ARGUMENT.sub(lambda found: OPTIONS[found[0]], text)

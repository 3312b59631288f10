"""save and load: a slim network as a folder without pickle, complete and checked before it appears."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from slimnet.agreement import BATCHES, relative_difference, resized
from slimnet.errors import ArchitectureError, BundleError, PlanError
from slimnet.export import check_size, exported_program, private_copy, write_onnx
from slimnet.input_spec import describe_inputs
from slimnet.inputs import Inputs, tensors_in
from slimnet.manifest import CERTIFICATE, ONNX, PLAN, PROGRAM, WEIGHTS, read_manifest, write_manifest
from slimnet.pipeline import Slimmed
from slimnet.pt2 import ProgramRunner, program_bytes
from slimnet.record import Record, read_record, rebuild, record_of


def save(slimmed: Slimmed, folder: str | os.PathLike[str], *, source: str | None = None) -> Path:
    """Write a slim network as a bundle: weights and plan, `.pt2`, ONNX, certificate and manifest.

    The three forms are run and must agree with `slimmed.model` before the folder appears. `source` says where the
    dense network came from and is recorded.

    Raises:
        BundleError: the folder exists or cannot be written, or a form does not agree.
        ExportError: the network cannot be exported.
    """
    target = Path(folder)
    check_free(target)
    with _staged(target) as staging:
        _write(slimmed, staging, source)
        _check_rebuilt(slimmed, staging)
        write_manifest(staging, source, slimmed.plan.digest)
    return target

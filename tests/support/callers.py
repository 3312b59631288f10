"""Contexts of torch that a caller may be in, on which no result depends."""

import pytest
import torch

in_any_context = pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
"""Run a test in each of them; it gets one as `context`, to be called."""

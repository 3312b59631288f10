"""Dense and slim file under onnxruntime, on the same inputs."""

from collections.abc import Sequence

import onnx
import onnxruntime
import torch

from slimnet.errors import CertificateError, TraceError, short_reason
from slimnet.onnx_slimming.example_feeds import Feed
from slimnet.surgery.output_difference import Difference


def session_of(model: onnx.ModelProto, name: str) -> onnxruntime.InferenceSession:
    """A session of a model on the CPU.

    Raises:
        TraceError: onnxruntime does not run it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise TraceError(f"onnxruntime does not run {name}: {short_reason(error)}") from error


def run_session(session: onnxruntime.InferenceSession, feed: Feed, name: str) -> list[torch.Tensor]:
    """The outputs of a session.

    Raises:
        TraceError: it does not take these inputs, or returns something else than tensors.
    """
    try:
        return [torch.from_numpy(array) for array in session.run(None, feed)]
    except Exception as error:  # as above
        raise TraceError(f"{name} does not run under onnxruntime: {short_reason(error)}") from error


def difference(dense: onnx.ModelProto, slim: onnx.ModelProto, feeds: Sequence[Feed]) -> tuple[Difference, int]:
    """How far the outputs of the slim model are from those of the dense one, and on how many samples.

    Inputs after the first in sizes that the dense model itself does not take are left out.

    Raises:
        TraceError: one does not run.
        CertificateError: they return other shapes.
    """
    before, after = session_of(dense, "the dense model"), session_of(slim, "the slim model")
    found, samples = Difference(), 0
    for index, feed in enumerate(feeds):
        try:
            expected = run_session(before, feed, "the dense model")
        except TraceError:
            if index == 0:
                raise
            continue
        try:
            actual = run_session(after, feed, "the slim model")
        except TraceError as error:
            raise CertificateError(str(error)) from error
        found.add_outputs(expected, actual)
        samples += max(1, next(iter(feed.values())).shape[0]) if next(iter(feed.values())).ndim else 1
    return found, samples

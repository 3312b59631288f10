"""ONNX graphs written by hand, node by node, with dead channels where a test wants them, and runs of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


class Graph:
    """A graph that grows by one node at a time; each method returns the name of the value that the node makes."""

    def __init__(self, opset: int = 17, seed: int = 0):
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}
        self.domains: list[str] = []

    def store(self, name: str, array: object, dtype: type = np.float32) -> str:
        self.stored[name] = np.asarray(array, dtype=dtype)
        return name

    def node(self, kind: str, *inputs: str, outputs: int = 1, name: str = "", domain: str = "", **attributes) -> str:
        name = name or f"{kind}_{len(self.nodes)}"
        out = [f"{name}_out" if outputs == 1 else f"{name}_out{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, out, name=name, domain=domain, **attributes))
        if domain:
            self.domains.append(domain)
        return out[0] if outputs == 1 else out

    def conv(self, x: str, name: str, shape: Sequence[int], dead=(), bias=None, zero=0.0, **attributes) -> str:
        """A convolution whose `dead` filters are `zero` times what they would be; `bias` is what they emit."""
        weight = self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weight[list(dead)] *= zero
        inputs = [x, self.store(f"{name}.weight", weight)]
        if bias is not None:
            shift = self.random.standard_normal(shape[0])
            shift[list(dead)] = bias
            inputs.append(self.store(f"{name}.bias", shift))
        return self.node("Conv", *inputs, name=f"{name}/Conv", **attributes)

    def norm(self, x: str, name: str, width: int, dead=(), beta=0.0, gamma=0.0) -> str:
        """A BatchNormalization with γ and β of some channels."""
        scale, shift = self.random.uniform(0.5, 1.5, width), self.random.standard_normal(width)
        scale[list(dead)], shift[list(dead)] = gamma, beta
        vectors = {
            "weight": scale,
            "bias": shift,
            "running_mean": self.random.standard_normal(width),
            "running_var": self.random.uniform(0.5, 2, width),
        }
        names = [self.store(f"{name}.{key}", value) for key, value in vectors.items()]
        return self.node("BatchNormalization", x, *names, name=f"{name}/BatchNormalization")

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def head(self, x: str, width: int, classes: int = 5) -> str:
        """Global average pooling and a Gemm."""
        pooled = self.node("Flatten", self.node("GlobalAveragePool", x))
        weight = self.store("fc.weight", self.random.standard_normal((classes, width)))
        bias = self.store("fc.bias", self.random.standard_normal(classes))
        return self.node("Gemm", pooled, weight, bias, name="fc/Gemm", transB=1)

    def model(self, output: str, sizes: Sequence[object] = ("n", 3, 8, 8), out=None, **settings) -> onnx.ModelProto:
        """The model; `out` are the sizes of its output."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, out)],
            [numpy_helper.from_array(array, name) for name, array in self.stored.items()],
        )
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(each, 1) for each in set(self.domains))]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8, **settings)
        return onnx.shape_inference.infer_shapes(model)


def plain_model(
    opset: int = 17, dead: Sequence[int] = (1, 4), beta: float = -0.5, gamma: float = 0.0
) -> onnx.ModelProto:
    """Two convolutions with BatchNorms, of which the first has dead channels, and a classifier."""
    graph = Graph(opset)
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3), pads=[1] * 4), "norm", 8, dead, beta, gamma))
    x = graph.relu(graph.conv(x, "second", (6, 8, 3, 3), bias=0.0))
    return graph.model(graph.head(x, 6))


def saved(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def outputs(path: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    """What a file computes under onnxruntime."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: array for each, array in zip(session.get_inputs(), arrays, strict=True)})


def difference(dense: Path, slim: Path, *shapes: Sequence[int]) -> float:
    """The largest difference of two files on fresh inputs, relative to the largest output."""
    worst = 0.0
    for seed in (101, 102):
        random = np.random.default_rng(seed)
        arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
        for expected, actual in zip(outputs(dense, *arrays), outputs(slim, *arrays), strict=True):
            assert expected.shape == actual.shape
            worst = max(worst, float(np.abs(expected - actual).max() / np.abs(expected).max()))
    return worst


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the stored tensors of a file."""
    return {tensor.name: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}


def node_names(path: Path) -> list[str]:
    return [node.name for node in onnx.load(path).graph.node]

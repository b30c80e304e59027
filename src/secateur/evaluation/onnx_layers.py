"""Times of single layers in onnxruntime: a model of the layer alone runs under the profiler."""

import importlib
from typing import Any

import numpy as np
from torch import Tensor

from secateur.evaluation.runtimes import kernel_times
from secateur.graph.operators import arguments
from secateur.masking.layer_rows import by_axis, padding_pairs
from secateur.masking.linear_layers import LinearLayer

RUNS = 7
RESOLUTION = 1e-6  # the profiler counts whole microseconds
OPSET, FORMAT = 18, 10
"""The operator set and the version of the format: the newest that every supported release of onnxruntime reads."""
MOVES = ("ReorderInput", "ReorderOutput")
"""Changes of layout at the ends of a model: inside a network neighbouring layers hand on the layout of blocks."""


def layer_seconds(layer: LinearLayer, x: Tensor, weight: Tensor, bias: Tensor | None) -> float:
    """Measure the seconds of a layer's kernels in onnxruntime, as inside a network.

    Args:
        layer: the layer.
        x: its input, with all or some of its channels or groups.
        weight: its weight for these.
        bias: its bias for these, if any.
    """
    array = x.detach().float().cpu().contiguous().numpy()
    times = kernel_times(layer_model(layer, x, weight, bias), {"x": array}, RUNS)
    return sum(max(min(seconds), RESOLUTION / 2) for (_, operator), seconds in times.items() if operator not in MOVES)


def layer_model(layer: LinearLayer, x: Tensor, weight: Tensor, bias: Tensor | None) -> bytes:
    """Build an ONNX model of one layer."""
    onnx: Any = importlib.import_module("onnx")
    helper = onnx.helper
    tensors = {"weight": weight if layer.inner == 1 else weight.t(), "bias": bias}
    arrays = {name: _array(tensor) for name, tensor in tensors.items() if tensor is not None}
    if not layer.is_convolution:  # x (..., inputs) @ weight.t() (inputs, outputs)
        arrays["weight"] = np.ascontiguousarray(arrays["weight"].T)
    graph = helper.make_graph(
        _nodes(layer, helper, x, arrays),
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    content: bytes = model.SerializeToString()
    return content


def _nodes(layer: LinearLayer, helper: Any, x: Tensor, arrays: dict[str, np.ndarray]) -> list[Any]:
    """Build the operators by which torch's exporter writes such a layer."""
    names = ["x", *arrays]
    if not layer.is_convolution:
        if x.dim() == 2:
            return [helper.make_node("Gemm", names, ["y"])]
        product = helper.make_node("MatMul", names[:2], ["product" if "bias" in arrays else "y"])
        return [product, helper.make_node("Add", ["product", "bias"], ["y"])] if "bias" in arrays else [product]
    options, kernel = arguments(layer.node), arrays["weight"].shape[2:]
    dilation = by_axis(options["dilation"], len(kernel))
    pairs = padding_pairs(options["padding"], [(n - 1) * step + 1 for n, step in zip(kernel, dilation, strict=True)])
    attributes = {
        "kernel_shape": list(kernel),
        "strides": by_axis(options["stride"], len(kernel)),
        "dilations": dilation,
        "pads": [first for first, _ in pairs] + [last for _, last in pairs],
        "group": x.shape[1] // arrays["weight"].shape[1],
    }
    return [helper.make_node("Conv", names, ["y"], **attributes)]


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())

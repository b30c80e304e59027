"""Calls of operators that are timed, and the clocks of layers in each runtime."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from secateur.evaluation.onnx_layers import layer_seconds
from secateur.evaluation.runtimes import EAGER, ONNXRUNTIME
from secateur.evaluation.smaller_layers import weights_of
from secateur.evaluation.timing import call_seconds
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand


@dataclass(frozen=True)
class OperatorCall:
    """A call of an operator.

    Args:
        target: the operator.
        args: its positional arguments.
        kwargs: its other arguments.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        """Run the operator."""
        return self.target(*self.args, **self.kwargs)

    @property
    def description(self) -> str:
        """The operator with all that its time depends on: shapes, types and layouts of tensors, other arguments."""
        leaves, form = tree_flatten((self.args, self.kwargs))
        words = [
            f"{value.dtype}{tuple(value.shape)}{tuple(value.stride())}" if isinstance(value, Tensor) else repr(value)
            for value in leaves
        ]
        return f"{self.target} {form} {' '.join(words)}"


def _eager_seconds(layer: LinearLayer, call: OperatorCall) -> float:
    return call_seconds(call)


def _onnxruntime_seconds(layer: LinearLayer, call: OperatorCall) -> float:
    tensors = weights_of(layer, call.args, call.kwargs).values()
    weight = next(tensor for tensor in tensors if tensor.dim() > 1)
    bias = next((tensor for tensor in tensors if tensor.dim() == 1), None)
    return layer_seconds(layer, operand(layer, call.args, call.kwargs), weight, bias)


LAYER_CLOCKS: Mapping[str, Callable[[LinearLayer, OperatorCall], float]] = {
    EAGER: _eager_seconds,
    ONNXRUNTIME: _onnxruntime_seconds,
}
"""The measurement of a layer's seconds in each runtime."""

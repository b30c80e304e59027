"""One operator as its rule sees it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.label_tracer import Labels, LabelTracer, Weight


@dataclass(frozen=True)
class OpContext:
    """One operator as its rule sees it: arguments by name, with labels in place of tensors, and the result's shape."""

    node: Node
    trace: LabelTracer
    args: dict[str, Any]
    shape: Any

    def freeze(self, value: Any, reason: str) -> None:
        self.trace.freeze(value, self.node, reason)

    def tie(self, a: Tensor, b: Tensor) -> None:
        self.trace.tie(a, b, self.node)

    def along(self, name: str, dim: int, produces: bool = False) -> Tensor:
        return self.trace.along(self.args[name], dim, self.node, produces)

    def activation(self, name: str) -> Tensor:
        value = self.args[name]
        if self.trace.is_constant(value):
            return torch.zeros((), dtype=torch.long).expand(value.shape)
        return self.trace.stripped(self.trace.activation(value, self.node))

    def frozen(self) -> Any:
        """Label 0 in the shape of the result."""
        return frozen(self.shape)


def frozen(shape: Any) -> Any:
    """Label 0 in the shape of a result; the same for each of several results."""
    if isinstance(shape, torch.Size):
        return torch.zeros((), dtype=torch.long).expand(shape)
    if isinstance(shape, list | tuple):
        return type(shape)(frozen(part) for part in shape)
    return shape


def tensors(values: Any) -> list[Labels]:
    """All labels in an operator's arguments, lists included."""
    if isinstance(values, Tensor | Weight):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [labels for value in values for labels in tensors(value)]

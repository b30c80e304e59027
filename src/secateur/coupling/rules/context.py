"""One operator as its rule sees it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.label_tracer import LabelTracer
from secateur.coupling.labels import Labels, Weight, broadcast_labels, frozen_labels
from secateur.coupling.trace_records import OpCost, Read


@dataclass(frozen=True)
class OpContext:
    """One operator as its label rule sees it.

    Args:
        node: the operator in the program.
        tracer: the walk through the program.
        args: the arguments by the names of the operator's schema, defaults filled in, with labels in place of tensors:
            a tensor of labels in the shape of an activation, or a `Weight` for a parameter or buffer.
        shape: the result's shape, `torch.Size`; a tuple of them for several results.
    """

    node: Node
    tracer: LabelTracer
    args: dict[str, Any]
    shape: Any

    def activation(self, name: str) -> Tensor:
        """Return an argument as one tensor of labels, in the shape of the argument.

        A parameter that is used as an activation keeps the labels of one axis; its other axes are frozen.
        """
        return self._activation_labels(self.args[name])

    def activations(self, name: str) -> list[Tensor]:
        """Return an argument that is a list of tensors: for each of them its labels, as `activation` does."""
        return [self._activation_labels(value) for value in self.args[name]]

    def _activation_labels(self, value: Any) -> Tensor:
        if self.tracer.is_constant(value):
            return frozen_labels(value.shape)
        return self.tracer.without_unmatched(self.tracer.activation(value, self.node))

    def axis_labels(self, value: str | Labels, dim: int, produces: bool = False, like: Tensor | None = None) -> Tensor:
        """Return one label for each index along an axis; what shares an index is coupled, (size of dim,).

        Args:
            value: the name of an argument, or labels.
            dim: the axis.
            produces: whether the axis makes units, as the rows of a linear layer's weight do.
            like: the labels (size of dim,) that it meets, where a computed weight has several axes along this one.
        """
        labels = self.args[value] if isinstance(value, str) else value
        return self.tracer.axis_labels(labels, dim, self.node, produces, like)

    def couple(self, a: Tensor, b: Tensor) -> None:
        """Couple labels that meet when a and b are broadcast together: they are removed together."""
        self.tracer.couple(a, b, self.node)

    def freeze(self, value: Labels, reason: str) -> None:
        """Freeze the labels of a value, for a reason such as "is sorted along these units"."""
        self.tracer.freeze(value, self.node, reason)

    def read(
        self,
        argument: str,
        dim: int,
        labels: Tensor,
        weight: str | None = None,
        bias: str | None = None,
        inner: int = 1,
        outputs: Tensor | None = None,
    ) -> None:
        """Note that the operator contracts over an axis, so that an absent unit must count as nothing there.

        Args:
            argument: the name of the argument.
            dim: its axis.
            labels: the labels along the axis (size of dim,).
            weight: the name of the weight that it is contracted with, of layers that can take a constant.
            bias: the name of their bias; "computed" where it is no plain parameter.
            inner: the axis of the weight that is contracted.
            outputs: the labels of the result's entries (outputs,).
        """
        self.tracer.notes.reads.append(Read(self.node, argument, dim, labels, weight, bias, inner, outputs))

    def count(self, constant: float, *axes: Tensor) -> None:
        """Note the operator's MACs: a constant times the number of remaining entries of each label vector."""
        self.tracer.notes.costs.append(OpCost(self.node, constant, axes))

    def with_args(self, args: dict[str, Any], shape: Any) -> "OpContext":
        """Return the operator with other arguments and another result shape, for the rule of another operator."""
        return replace(self, args=args, shape=shape)

    def broadcast(self, labels: Tensor, dim: int) -> Tensor:
        """Repeat the labels along one axis (size of dim,) to the shape of the result."""
        return broadcast_labels(labels, dim, self.shape)

    def frozen(self) -> Any:
        """Return label 0 in the shape of the result."""
        return frozen(self.shape)


def frozen(shape: Any) -> Any:
    """Return label 0 in the shape of a result; of several results, for each of them."""
    if isinstance(shape, torch.Size):
        return frozen_labels(shape)
    if isinstance(shape, list | tuple):
        return type(shape)(frozen(item) for item in shape)
    return shape


def tensors(values: Any) -> list[Labels]:
    """Return all labels in an operator's arguments, those in lists included."""
    if isinstance(values, Tensor | Weight):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [labels for value in values for labels in tensors(value)]


def freeze_arguments(op: OpContext, reason: str, values: Iterable[Any] | None = None) -> Any:
    """Freeze all arguments of an operator, or some values, and return label 0 in the shape of its result."""
    for labels in tensors(op.args if values is None else list(values)):
        op.freeze(labels, reason)
    return op.frozen()

"""Operators that consume units, and axes of results on which units lie."""

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.registry import rule_of


@dataclass(frozen=True, eq=False)
class ConstantSink:
    """The tensor that takes the constant which a consumer receives from removed units.

    Args:
        weight: the consumer's weight.
        tensor: the tensor that takes the constant.
        kind: "bias": it is added there; "running_mean": it is subtracted from the batch norm behind; "new": a bias is
            created.
        inner: the axis of the weight that is contracted.
        groups: the number of groups of a grouped convolution.
        outputs: for each entry of the consumer's result the number of its unit, -1 where it is frozen.
    """

    weight: str
    tensor: str
    kind: str
    inner: int
    groups: int
    outputs: Tensor


@dataclass(frozen=True, eq=False)
class Consumer:
    """An operator that contracts over an axis on which units lie.

    Args:
        node: the operator in the program.
        argument: the name of the argument that holds the units.
        dim: the axis of the argument.
        units: for each index along the axis the number of its unit in the network, -1 where it is frozen.
        fold: the tensor that takes a constant input; None where there is none, and absent units count as zero.
    """

    node: Node
    argument: str
    dim: int
    units: Tensor
    fold: ConstantSink | None

    @property
    def is_inner(self) -> bool:
        """True for a recurrent layer that reads its own hidden units, through its weights."""
        recurrence = rule_of(self.node).recurrence
        return recurrence is not None and recurrence.weights == self.argument


@dataclass(frozen=True, eq=False)
class UnitAxis:
    """An axis of an operator's result on which units lie.

    Args:
        node: the operator in the program.
        dim: the axis of its result.
        units: for each index along the axis the number of its unit in the network, -1 where there is none or it is
            frozen.
    """

    node: Node
    dim: int
    units: Tensor

"""The outputs that a layer should have: rows of the dense network, and intervals that are equally good."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TargetInterval:
    """The target of a layer's output: the dense output, or an interval where the nonlinearity clips.

    Args:
        target, lower, upper: the target and the ends of the interval, at some places (rows, outputs).
    """

    target: Tensor
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True, eq=False)
class DenseRows:
    """The dense network's values at some places of a layer's result, each (rows, outputs).

    Args:
        output: the layer's output.
        value: what the nonlinearity behind gets: the output behind its batch norm, in its sum.
    """

    output: Tensor
    value: Tensor

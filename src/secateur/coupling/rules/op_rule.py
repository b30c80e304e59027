"""The record of an operator: how labels pass it, and its behaviour in masked runs, cuts and repairs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.fx import Node

from secateur.coupling.rules.context import OpContext
from secateur.graph.program import OpOverride

LabelRule = Callable[[OpContext], Any]
LiteralAxis = tuple[str, int | None, Tensor]
LiteralRule = Callable[[OpContext, Any], Iterator[LiteralAxis]]
MaskedOp = Callable[..., Any]
Bounds = tuple[float, float]
BoundsRule = Callable[[Node], Bounds]
AxisTest = Callable[[Node, int], bool]
Shapes = Mapping[str, tuple[int, ...]]
AttributeRule = Callable[[Any, Shapes], dict[str, Any]]

LayerKind = Literal["linear", "addmm", "convolution", "transposed convolution"]
NormKind = Literal["batch", "layer", "group"]
GateFlow = Literal["passes", "sum", "quotient", "padding"]
ChannelFlow = Literal[
    "same", "join", "batch norm", "pooling", "mean", "sum", "move", "flip", "reshape", "concatenate", "pad"
]


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer or cell.

    Args:
        gates: how many gates it has; the rows of its weights are those of each gate in turn.
        weights: the argument that holds the weights by which its hidden units are read.
    """

    gates: int
    weights: Literal["params", "w_hh"]


@dataclass(frozen=True)
class OpRule:
    """The description of an operator, one field for each purpose.

    A field holds a function where that needs no more than the operator; where the behaviour belongs to a later package,
    it holds the name of a kind, for which that package has the function.

    Args:
        labels: how labels pass: called with an `OpContext`, it returns labels in the shape of the result.
        literals: which of its arguments are numbers that count entries, and the labels of the entries (entries, labels
            of each) that each one counts: (argument, position in it or None, labels).
        masked: the operator with units absent: `masked(present, **arguments)`, with 1 in `present` where an entry is
            kept and 0 where it is absent, broadcast to the argument that is read. Without it absent units are zeros.
        layer: the kind of layer that it computes, of which repairs solve the weight.
        norm: the kind of normalisation that it computes.
        recurrence: the gates and weights of a recurrent operator.
        scaled_by_width: whether it scales by the width of its operand, where no scale is given (attention).
        sums: whether it adds its first two arguments, or subtracts the second.
        copies: whether its result is its first argument in evaluation mode.
        clips: the bounds beyond which its result is constant (ReLU, clamp), (-inf, inf) for none.
        keeps_apart: whether it treats each position along an axis of its first argument alike and by itself, called
            with the operator and the axis. Operators that torch tags as pointwise need none.
        gates: how the derivative by a gate passes backwards: "passes" where it is linear in each unit, "sum",
            "quotient" (in the first argument alone), "padding" (with zeros alone).
        straight_through: the call that stands in for it where gradients are to pass.
        channels: how a graph of channels continues: an edge of a kind; None ends its chains.
        attributes: of modules that call it, by class or full name of a class, the attributes that repeat the sizes of
            tensors: called with a module and the shapes of its tensors, it returns values by attribute.
    """

    labels: LabelRule
    literals: LiteralRule | None = None
    masked: MaskedOp | None = None
    layer: LayerKind | None = None
    norm: NormKind | None = None
    recurrence: Recurrence | None = None
    scaled_by_width: bool = False
    sums: Literal["add", "sub"] | None = None
    copies: bool = False
    clips: BoundsRule | None = None
    keeps_apart: AxisTest | None = None
    gates: GateFlow | None = None
    straight_through: OpOverride | None = None
    channels: ChannelFlow | None = None
    attributes: Mapping[type[nn.Module] | str, AttributeRule] = field(default_factory=dict)


RuleTable = Mapping[str, OpRule]
"""Rules by the names of operators, several names with the same rule in one key, separated by blanks."""

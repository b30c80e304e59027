"""Records that label tracing fills: label space, couplings, uses of axes, and notes on single operators."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.labels import ParameterAxis, Weight

if TYPE_CHECKING:
    from secateur.coupling.shape_literals import ShapeLiteral


@dataclass(frozen=True)
class TracingScope:
    """The kinds of units that one walk through the program looks for.

    Args:
        by_width: whether a unit of attention is the same place of all heads, in place of a head.
        stack_lengths: the only lengths of parameters' axes that get labels (numbers of experts); empty: all lengths.
        head_labels: by label, the label that stands for it from the start (itself where it is alone): entries of one
            head, which only the attention product couples, behind rotations and norms.
    """

    by_width: bool = False
    stack_lengths: frozenset[int] = frozenset()
    head_labels: Tensor | None = None


@dataclass
class LabelSpace:
    """All labels that a walk has given out.

    Args:
        size: one more than the highest label.
        origins: the name and axis of each labelled axis, and its labels (length,).
        constants: names of tensors that operators such as `zeros` and `pad` create.
        unmatched: labels of constants that have met no units so far.
        unlabelled: axes of parameters that lie outside the scope of the walk.
    """

    size: int = 1
    origins: list[tuple[str, int, Tensor]] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    unmatched: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    unlabelled: set[ParameterAxis] = field(default_factory=set)

    def add(self, name: str, axis: int, length: int) -> Tensor:
        """Give fresh labels to an axis, (length,)."""
        labels = torch.arange(self.size, self.size + length)
        self.size += length
        self.origins.append((name, axis, labels))
        return labels


@dataclass(frozen=True)
class Freeze:
    """Labels that can't be cut.

    Args:
        labels: the labels, without repetition.
        operator, module: the operator that freezes them, and the module that calls it.
        reason: the end of a sentence about them.
    """

    labels: Tensor
    operator: str
    module: str
    reason: str


@dataclass
class Couplings:
    """Labels that must be removed together, and labels that can't be removed.

    Args:
        pairs: pairs of coupled labels, (2, pairs) each.
        freezes: frozen labels.
        rectangles: operators with result labels that differ along several axes; what remains must be rectangular.
    """

    pairs: list[Tensor] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    rectangles: list[tuple[Node, Tensor]] = field(default_factory=list)


@dataclass
class AxisUses:
    """Axes of parameters that operators use, in order of use.

    Args:
        first_use: of each used axis, when it was first used.
        first_production: of each axis that makes units (a weight's filters), when it first did.
    """

    first_use: dict[ParameterAxis, int] = field(default_factory=dict)
    first_production: dict[ParameterAxis, int] = field(default_factory=dict)

    def add(self, axis: ParameterAxis, produces: bool) -> None:
        """Note the use of an axis."""
        order = len(self.first_use) + len(self.first_production)
        self.first_use.setdefault(axis, order)
        if produces:
            self.first_production.setdefault(axis, order)


@dataclass
class AttentionLabels:
    """Labels of attention products.

    Args:
        heads: the operator, the head axis of its operands, counted from the end, and the labels along it (heads,).
        widths: labels along the width of heads.
        within_heads: pairs of labels that lie in the same head, (2, pairs) each.
    """

    heads: list[tuple[Node, int, Tensor]] = field(default_factory=list)
    widths: list[Tensor] = field(default_factory=list)
    within_heads: list[Tensor] = field(default_factory=list)


@dataclass
class ExpertLabels:
    """Products with stacks of weights, one for each expert, and the choices among experts.

    Args:
        stacks: the operator, its stack of weights and the labels of its other operand.
        choices: the operator (`topk`), the labels that it chooses from (experts,), and how many it chooses.
    """

    stacks: list[tuple[Node, Weight, Tensor]] = field(default_factory=list)
    choices: list[tuple[Node, Tensor, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Read:
    """An operator that contracts over an axis: an absent unit must count as nothing there.

    Args:
        node: the operator.
        argument: the name of the argument.
        dim: the axis of the argument.
        labels: the labels along the axis (size of dim,).
        weight: the name of the weight that the axis is contracted with, None where it is no plain parameter.
        bias: the name of the bias; "computed" where it is no plain parameter.
        inner: the axis of the weight that is contracted.
        outputs: the labels of the result's entries (outputs,).
    """

    node: Node
    argument: str
    dim: int
    labels: Tensor
    weight: str | None = None
    bias: str | None = None
    inner: int = 1
    outputs: Tensor | None = None


@dataclass(frozen=True)
class OpCost:
    """The MACs of an operator: a constant times the number of remaining entries of each of these label vectors."""

    node: Node
    constant: float
    axes: tuple[Tensor, ...]


@dataclass
class OperatorNotes:
    """Facts about single operators that rules note.

    Args:
        reads: contractions over labelled axes.
        costs: numbers of MACs.
        additions: sums of activations of different layers, with the labels of the result.
        dropouts: paths of dropout modules, with the labels that they act on.
        literals: numbers written into the program that count units.
        draws: operators that draw random numbers, with the labels of the result.
    """

    reads: list[Read] = field(default_factory=list)
    costs: list[OpCost] = field(default_factory=list)
    additions: list[tuple[Node, Tensor]] = field(default_factory=list)
    dropouts: list[tuple[str, Tensor]] = field(default_factory=list)
    literals: "list[ShapeLiteral]" = field(default_factory=list)
    draws: list[tuple[Node, tuple[Tensor, ...]]] = field(default_factory=list)

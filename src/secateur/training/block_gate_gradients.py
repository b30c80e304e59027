"""Derivatives by gates behind residual blocks, from the gradients of parameters alone.

Write <x, g> for a unit's values times their gradients, summed: the derivative of the loss by a gate on them. Operators
that are linear in each unit, and ReLUs, preserve it: <relu(x), g> before is <x, g> behind. A sum divides it among its
operands. Batch norms and layers express it by their parameters: gamma dE/dgamma + beta dE/dbeta for the result of a
batch norm, the sum of w dE/dw over the weights that read a unit, the sum of w dE/dw and b dE/db over those that produce
it. So the derivative by a gate behind a block is a sum of such terms, each added or subtracted.
"""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal

from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer


@dataclass(frozen=True)
class Term:
    """A derivative by the units of one operator, from its parameters.

    Args:
        kind: "norm" of a batch norm's result, "reads" of a layer's input, "writes" of its result.
        node: the operator.
    """

    kind: Literal["norm", "reads", "writes"]
    node: Node


Terms = Counter[Term]  # how often each is added


class BlockTerms:
    """The terms of which the derivative by a gate behind an operator is the sum.

    Args:
        norms: the batch norms whose channels are units.
        layers: the layers whose weights are parameters, by operator.
        consumers: all operators that contract over units.
    """

    def __init__(self, norms: Set[Node], layers: Mapping[Node, LinearLayer], consumers: Set[Node]) -> None:
        self._norms, self._layers, self._consumers = norms, layers, consumers
        self._known: dict[Node, Terms | None] = {}

    def of(self, node: Node) -> Terms | None:
        """Return the terms of <x, g> where x is an operator's result; None where parameters do not determine it."""
        if node not in self._known:
            self._known[node] = Counter([Term("norm", node)]) if node in self._norms else self._through_users(node)
        return self._known[node]

    def _through_users(self, node: Node) -> Terms | None:
        total: Terms = Counter()
        for user in node.users:
            terms = self._through(node, user)
            if terms is None:
                return None
            total.update(terms)
        return total

    def _through(self, node: Node, user: Node) -> Terms | None:
        """Return the terms that one user of an operator contributes."""
        layer = self._layers.get(user)
        if layer is not None:
            is_input = arguments(user)[layer.argument] is node
            return Counter([Term("reads", user)]) if is_input and layer.reads else None
        if user.op != "call_function" or user in self._consumers:
            return None
        flow = rule_of(user).gates
        is_dividend = flow == "quotient" and user.args[0] is node
        if flow == "passes" or is_dividend or (flow == "padding" and not arguments(user).get("value")):
            return self.of(user)
        return self._through_sum(node, user) if flow == "sum" else None

    def _through_sum(self, node: Node, user: Node) -> Terms | None:
        """Return the terms of a sum without those of its other operand."""
        other_operands = [operand for operand in user.args[:2] if operand is not node]
        total = self.of(user)
        if total is None or not other_operands:  # x + x
            return total
        other_terms = self._written(other_operands[0], user) if isinstance(other_operands[0], Node) else None
        if other_terms is None:
            return None
        remaining: Terms = Counter(total)
        remaining.subtract(other_terms)
        return remaining

    def _written(self, node: Node, user: Node) -> Terms | None:
        """Return the terms of an operand that only a sum reads, by the batch norm or the layer that produces it."""
        while set(node.users) == {user}:
            if node in self._norms:
                return Counter([Term("norm", node)])
            if node in self._layers:
                return Counter([Term("writes", node)])
            passes = rule_of(node).gates == "passes"
            source = node.all_input_nodes[0] if passes and len(node.all_input_nodes) == 1 else None
            if source is None:
                return None
            node, user = source, node
        return None

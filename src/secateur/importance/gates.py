"""Gates: factors of 1 on units, by which losses are differentiated.

A group that batch norms make (a residual stream is made by those of all its blocks) has a gate behind each of them; any
other one gate, which closes all its readers. A gate's derivative behind a batch norm is gamma dE/dgamma + beta dE/dbeta
(Molchanov et al. 2019, section 3.2), so nothing is approximated by taking it there.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.data import Batch
from secateur.errors import DataError
from secateur.importance.evidence import Evidence
from secateur.importance.gradients import example_loss
from secateur.importance.sites import differentiable
from secateur.network.layers import norms_of
from secateur.network.masked import Removal, shaped
from secateur.network.program import Call, Handler
from secateur.network.units import Group, Network


class Gates:
    """All gates of a network: a matrix of ones, whose first row closes readers and each other one a batch norm.

    Args:
        evidence: the network, the examples and the loss.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.norms = norms_of(evidence.network)
        self.behind = torch.zeros(1 + len(self.norms), evidence.network.units + 1, dtype=torch.bool)
        for row, units in enumerate(self.norms.values(), 1):
            self.behind[row, units[units >= 0]] = True
        self.behind[0] = ~self.behind[1:].any(0)

    def losses(self, cell: Batch, each: int) -> tuple[Tensor, Tensor]:
        """Every example's loss (examples,), and the gates that it can be differentiated by.

        Args:
            cell: the examples.
            each: how many copies of the gates there are: one for all examples, or one for each.

        Returns:
            The losses, and the gates (each, rows, units + 1).

        Raises:
            DataError: one for each is asked for, and the network's code fixes the batch size.
        """
        network = self.evidence.network
        if each > 1:
            need_examples_apart(network, "taylor-gates")
        gates = torch.ones(each, *self.behind.shape, device=network.device, requires_grad=True)
        handlers: dict[Node, Handler] = differentiable(network.program)
        handlers |= Removal({}).handlers(network, gates[:, 0])
        for row, (node, units) in enumerate(self.norms.items(), 1):
            handlers[node] = partial(_gated, network, node, gates[:, row, units], handlers.get(node))
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            output = self.evidence.forward(cell, handlers)
            return example_loss(self.evidence, cell, output), gates

    def of_group(self, group: Group, found: Tensor) -> Tensor:
        """The mean over a group's gates of what was found for each. (..., units)

        Args:
            group: the group.
            found: (..., rows, units + 1).
        """
        own = self.behind[:, group.span].to(found)
        total: Tensor = (found[..., group.span] * own).sum(-2) / own.sum(0)
        return total


def _gated(
    network: Network,
    node: Node,
    gates: Tensor,
    inner: Handler | None,
    target: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    result = inner(target, args, kwargs) if inner is not None else target(*args, **kwargs)
    made, *rest = result if isinstance(result, tuple | list) else (result,)
    recorded = node.meta["val"]
    first = recorded[0] if isinstance(recorded, tuple | list) else recorded
    gated = made * shaped(gates.to(made), made, 1, network.program.batch_axis(first))
    return (gated, *rest) if rest else gated


def need_examples_apart(network: Network, instead: str) -> None:
    """
    Raises:
        DataError: the network's code fixes the batch size, so each example can't have gates of its own.
    """
    if network.program.batched is None:
        raise DataError(f"{network.title} fixes its batch size, so examples can't be told apart; rank by {instead!r}")


def cell_shares(evidence: Evidence) -> Tensor:
    """The part of all examples that each cell holds. (cells,)"""
    sizes = torch.tensor([float(cell.size or 1) for cell in evidence.cells], dtype=torch.float64)
    return sizes / sizes.sum()


def mean_over_cells(evidence: Evidence, found: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean of one value per unit from each minibatch, weighted by its examples, and its standard error."""
    weights = cell_shares(evidence)
    values = torch.stack([part.double().cpu() for part in found])  # (cells, units)
    mean = weights @ values
    count = len(values)
    if count < 2:
        return mean, torch.zeros_like(mean)
    spread = (weights[:, None].square() * (values - mean).square()).sum(0) * count / (count - 1)
    return mean, spread.sqrt()

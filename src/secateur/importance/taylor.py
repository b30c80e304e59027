"""Taylor expansions of 2019 (Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019).

The square of the estimated change of the loss, minibatch by minibatch: what a unit's weights are worth, one by one
(sections 3.1 and 4), or a gate on the unit as a whole (section 3.2), to first or to second order. A minibatch is a cell
of at most 32 examples, whatever the batches of the data are: the square of a mean depends on how many it is over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.data import Batch
from secateur.errors import DataError
from secateur.importance.evidence import Evidence
from secateur.importance.gates import Gates, cell_shares, mean_over_cells
from secateur.importance.gradients import example_loss
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.seeds import generator_for
from secateur.importance.sites import differentiable
from secateur.importance.weights import incoming

Weights = Mapping[str, Tensor]
Change = Callable[[Tensor, Weights], Weights]
PROBES = 8  # of the Hessian's diagonal, for each minibatch


@criterion("taylor-weights", options=(), uses="gradients")
def taylor_weights(evidence: Evidence) -> dict[str, GroupScores]:
    """Sum of (g w)^2 over the unit's incoming weights: their change of the loss, to first order (I^(1))."""
    evidence.need_examples("taylor-weights")
    return _over_weights(evidence, "taylor-weights", _first_order)


@criterion("taylor-weights-second", options=(), uses="gradients")
def taylor_weights_second(evidence: Evidence) -> dict[str, GroupScores]:
    """Sum of (g w - w (H w) / 2)^2 over the unit's incoming weights, H w by a Hessian-vector product (I^(2))."""
    evidence.need_examples("taylor-weights-second")
    return _over_weights(evidence, "taylor-weights-second", _second_order)


@criterion("taylor-gates", options=(), uses="gradients")
def taylor_gates(evidence: Evidence) -> dict[str, GroupScores]:
    """The squared derivative by the unit's gate, minibatch by minibatch; the paper's best (its Taylor-FO-BN)."""
    evidence.need_examples("taylor-gates")
    gates = Gates(evidence)
    return _over_cells(evidence, gates, [_slopes(gates, cell).square() for cell in _cells(evidence, "taylor-gates")])


@criterion("taylor-gates-examples", options=(), uses="gradients")
def taylor_gates_examples(evidence: Evidence) -> dict[str, Tensor]:
    """The squared derivative by the unit's gate, example by example (the paper's full-gradient variant)."""
    evidence.need_examples("taylor-gates-examples")
    gates = Gates(evidence)
    found = []
    for cell in _cells(evidence, "taylor-gates-examples"):
        losses, leaves = gates.losses(cell, cell.size or 1)
        found.append(torch.autograd.grad(losses.sum(), leaves)[0].cpu().double().square())
    squares = torch.cat(found)  # (examples, rows, units + 1)
    return {group.name: gates.of_group(group, squares).T for group in evidence.groups}


@criterion("taylor-gates-second", options=(), uses="gradients")
def taylor_gates_second(evidence: Evidence) -> dict[str, GroupScores]:
    """The squared change by closing the unit's gate, to second order: (-g + H / 2)^2, with the Hessian's own entry.

    The diagonal of the Hessian is the mean over all minibatches of products with random signs (Hutchinson 1989; Bekas
    et al. 2007), 8 for each; the gradient is each minibatch's own.
    """
    evidence.need_examples("taylor-gates-second")
    gates, generator = Gates(evidence), generator_for(evidence.seed, "taylor-gates-second")
    slopes, curvatures = [], []
    for cell in _cells(evidence, "taylor-gates-second"):
        losses, leaves = gates.losses(cell, 1)
        (slope,) = torch.autograd.grad(losses.mean(), leaves, create_graph=True)
        slopes.append(slope.detach()[0])
        curvatures.append(_diagonal(slope, leaves, generator)[0])
    shares = cell_shares(evidence).to(slopes[0])
    curvature = torch.einsum("c,cru->ru", shares, torch.stack(curvatures))
    return _over_cells(evidence, gates, [(curvature / 2 - slope).square() for slope in slopes])


def _diagonal(slope: Tensor, leaves: Tensor, generator: torch.Generator) -> Tensor:
    """An estimate of the diagonal of the Hessian. (1, rows, units + 1)"""
    total = torch.zeros_like(slope)
    if not slope.requires_grad:  # the loss is linear
        return total
    for _ in range(PROBES):
        signs = (torch.randint(0, 2, slope.shape, generator=generator) * 2 - 1).to(slope)
        (product,) = _second_derivatives((slope * signs).sum(), [leaves])
        total += product * signs
    return total.detach() / PROBES


def _second_derivatives(along: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The derivatives of a slope along a direction.

    Raises:
        DataError: torch has no second derivative of one of the network's operators.
    """
    try:
        return torch.autograd.grad(along, leaves, retain_graph=True, materialize_grads=True, allow_unused=True)
    except RuntimeError as failure:
        if "is not implemented" not in str(failure):
            raise
        raise DataError(
            f"torch can't differentiate one of the network's operators twice ({failure}); rank by the criterion of "
            "first order"
        ) from failure


def _cells(evidence: Evidence, name: str) -> Iterator[Batch]:
    return evidence.watched(evidence.cells, name)


def _slopes(gates: Gates, cell: Batch) -> Tensor:
    """The derivative of the minibatch's mean loss by each gate. (rows, units + 1)"""
    losses, leaves = gates.losses(cell, 1)
    slope: Tensor = torch.autograd.grad(losses.mean(), leaves)[0][0]
    return slope


def _over_cells(evidence: Evidence, gates: Gates, found: list[Tensor]) -> dict[str, GroupScores]:
    return {
        group.name: GroupScores(*mean_over_cells(evidence, [gates.of_group(group, part) for part in found]))
        for group in evidence.groups
    }


def _over_weights(evidence: Evidence, name: str, change: Change) -> dict[str, GroupScores]:
    found = []
    for cell in _cells(evidence, name):
        changes = {key: value.square() for key, value in _changes(evidence, cell, change).items()}
        found.append({group.name: incoming(evidence.network, group, changes.__getitem__) for group in evidence.groups})
    return {
        group.name: GroupScores(*mean_over_cells(evidence, [part[group.name] for part in found]))
        for group in evidence.groups
    }


def _changes(evidence: Evidence, cell: Batch, change: Change) -> Weights:
    """By how much each weight's going would change the minibatch's mean loss."""
    program = evidence.network.program
    weights = {name: program.state(name).detach().clone().requires_grad_() for name in program.parameters}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        output = evidence.forward(cell, differentiable(program), weights)
        return change(example_loss(evidence, cell, output).mean(), weights)


def _first_order(loss: Tensor, weights: Weights) -> Weights:
    slopes = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True, allow_unused=True)
    return {name: slope * weight.detach() for (name, weight), slope in zip(weights.items(), slopes, strict=True)}


def _second_order(loss: Tensor, weights: Weights) -> Weights:
    leaves = list(weights.values())
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True, allow_unused=True)
    along = sum(((slope * leaf.detach()).sum() for slope, leaf in zip(slopes, leaves, strict=True)), torch.zeros(()))
    products = _second_derivatives(along, leaves)
    return {
        name: (leaf * (slope - product / 2)).detach()
        for name, leaf, slope, product in zip(weights, leaves, slopes, products, strict=True)
    }

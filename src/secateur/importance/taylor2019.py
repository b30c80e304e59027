"""Taylor expansions of 2019 (Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019).

The criteria are squares of the estimated change of the loss, minibatch by minibatch: without a unit's weights, one by
one (sections 3.1 and 4), or without the unit by its gate (section 3.2), to first or to second order. A minibatch is a
batch of the data, in parts of at most 32 examples: the square of a mean depends on the number of examples in the mean.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.data.batch import Batch
from secateur.importance.context import CriterionContext
from secateur.importance.gates import Gates, mean_over_microbatches, microbatch_weights
from secateur.importance.gradient import example_loss
from secateur.importance.hessian_diagonal import estimated_diagonal, exact_diagonal, second_derivatives
from secateur.importance.magnitude import incoming
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.taylor import Taylor
from secateur.masking.straight_through import straight_through
from secateur.utils.dtypes import real_product, to_widest
from secateur.utils.rng import generator_for

Weights = Mapping[str, Tensor]
Change = Callable[[Tensor, Weights], Weights]


@criterion("taylor-weights", config=Taylor(of="weights"), uses="gradients")
def taylor_weights(context: CriterionContext, config: Taylor) -> dict[str, GroupScores]:
    """Sum of (g w)^2 over the unit's incoming weights: their change of the loss, to first order (I^(1))."""
    context.need_examples("taylor-weights")
    return _over_weights(context, "taylor-weights", _first_order)


@criterion("taylor-weights-second", config=Taylor(of="weights", order=2), uses="gradients")
def taylor_weights_second(context: CriterionContext, config: Taylor) -> dict[str, GroupScores]:
    """Sum of (g w - w (H w) / 2)^2 over the unit's incoming weights, H w by a Hessian-vector product (I^(2))."""
    context.need_examples("taylor-weights-second")
    return _over_weights(context, "taylor-weights-second", _second_order)


@criterion("taylor-gates", config=Taylor(of="gates"), uses="gradients")
def taylor_gates(context: CriterionContext, config: Taylor) -> dict[str, GroupScores]:
    """The squared derivative by the unit's gate, minibatch by minibatch; the paper's best (its Taylor-FO-BN).

    In a residual stage a unit has one gate behind every block, else one behind its batch norm, else before its
    consumers.
    """
    return _over_gates(context, "taylor-gates", Gates(context))


@criterion("taylor-gates-before-norm", config=Taylor(of="gates", gate_position="before norms"), uses="gradients")
def taylor_gates_before_norm(context: CriterionContext, config: Taylor) -> dict[str, GroupScores]:
    """The same with gates before batch norms: the square of the sum of g w over the filter (and its bias)."""
    return _over_gates(context, "taylor-gates-before-norm", Gates(context, "before norms"))


@criterion("taylor-gates-norms", config=Taylor(of="gates", gate_position="norms"), uses="gradients")
def taylor_gates_norms(context: CriterionContext, config: Taylor) -> dict[str, GroupScores]:
    """The same with gates behind batch norms in residual stages, too: the mean of squares over all producers (ours)."""
    return _over_gates(context, "taylor-gates-norms", Gates(context, "norms"))


@criterion("taylor-gates-examples", config=Taylor(of="gates", by_example=True), uses="gradients")
def taylor_gates_examples(context: CriterionContext, config: Taylor) -> dict[str, Tensor]:
    """The squared derivative by the unit's gate, example by example (the paper's full-gradient variant)."""
    context.need_examples("taylor-gates-examples")
    gates = Gates(context)
    derivatives = []
    for batch in _microbatches(context, "taylor-gates-examples"):
        derivatives.append(gates.derivatives_by_example(batch).cpu().double().square())
    squares = torch.cat(derivatives)  # (examples, rows, units + 1)
    return {group.name: gates.of_group(group, squares).T for group in context.groups}


@criterion("taylor-gates-second", config=Taylor(order=2), uses="gradients")
def taylor_gates_second(context: CriterionContext, config: Taylor) -> dict[str, GroupScores]:
    """The squared change by closing the unit's gate, to second order: (-g + H / 2)^2, with the Hessian's own entry.

    By default H is estimated by 8 products with random signs for each minibatch, and averaged over all minibatches.
    With `hessian="exact"` it is each minibatch's own, by one backward pass for each unit.
    """
    context.need_examples("taylor-gates-second")
    gates, generator = Gates(context), generator_for(context.seed, "taylor-gates-second")
    is_exact = config.hessian == "exact"
    entries = [[0, *entry] for group in context.groups for entry in gates.entries(group)]
    slopes, curvatures = [], []
    for batch in _microbatches(context, "taylor-gates-second"):
        losses, leaves = gates.losses(batch, 1)
        (slope,) = torch.autograd.grad(losses.mean(), leaves, create_graph=True)
        diagonal = exact_diagonal(slope, leaves, entries) if is_exact else estimated_diagonal(slope, leaves, generator)
        slopes.append(slope.detach()[0])
        curvatures.append(diagonal[0])
    if not is_exact:
        mean = torch.einsum("c,cru->ru", microbatch_weights(context).to(slopes[0]), torch.stack(curvatures))
        curvatures = [mean] * len(curvatures)
    changes = [(curvature / 2 - slope).square() for slope, curvature in zip(slopes, curvatures, strict=True)]
    return _by_group(context, gates, changes)


def _microbatches(context: CriterionContext, name: str) -> Iterator[Batch]:
    return context.watched(context.microbatches, name)


def _over_gates(context: CriterionContext, name: str, gates: Gates) -> dict[str, GroupScores]:
    """Return the squares of the derivative of each minibatch's mean loss by each gate."""
    context.need_examples(name)
    squares = []
    for batch in _microbatches(context, name):
        losses, leaves = gates.losses(batch, 1)
        squares.append(torch.autograd.grad(losses.mean(), leaves)[0][0].square())
    return _by_group(context, gates, squares)


def _by_group(context: CriterionContext, gates: Gates, squares: list[Tensor]) -> dict[str, GroupScores]:
    """Return the mean over minibatches of squares (rows, units + 1), with its error."""
    return {
        group.name: GroupScores(
            *mean_over_microbatches(context, [gates.of_group(group, batch_squares) for batch_squares in squares])
        )
        for group in context.groups
    }


def _over_weights(context: CriterionContext, name: str, change: Change) -> dict[str, GroupScores]:
    sums = []
    for batch in _microbatches(context, name):
        squares = _Squares(_changes(context, batch, change))
        sums.append({group.name: incoming(context.network, group, squares.of) for group in context.groups})
    return {
        group.name: GroupScores(*mean_over_microbatches(context, [by_group[group.name] for by_group in sums]))
        for group in context.groups
    }


class _Squares(NamedTuple):
    """Squares of changes in the widest type, as those of half precision would underflow, each when it is asked for."""

    changes: Weights

    def of(self, name: str) -> Tensor:
        return to_widest(self.changes[name]).square()


def _changes(context: CriterionContext, batch: Batch, change: Change) -> Weights:
    """Return the change of the minibatch's mean loss without each weight."""
    program = context.network.program
    weights = {name: program.state(name).detach().clone().requires_grad_() for name in program.differentiable}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        output = context.forward(batch, straight_through(program), weights)
        return change(example_loss(context, batch, output).mean(), weights)


def _first_order(loss: Tensor, weights: Weights) -> Weights:
    slopes = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True, allow_unused=True)
    return {
        name: real_product(slope, weight.detach())
        for (name, weight), slope in zip(weights.items(), slopes, strict=True)
    }


def _second_order(loss: Tensor, weights: Weights) -> Weights:
    leaves = list(weights.values())
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True, allow_unused=True)
    along = sum(
        (real_product(slope, leaf.detach()).sum() for slope, leaf in zip(slopes, leaves, strict=True)), torch.zeros(())
    )
    products = second_derivatives(along, leaves)
    return {
        name: real_product(leaf, slope - product / 2).detach()
        for name, leaf, slope, product in zip(weights, leaves, slopes, products, strict=True)
    }

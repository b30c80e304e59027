"""Imputation of ablated units: each is replaced by its best linear prediction from the kept units.

The prediction is by least squares over the examples, position by position, from the covariances of each consumer's
input. A cut network whose consumers are refitted by least squares gives the same, as far as one position of an image
allows.
Along an order each unit that goes or comes is one step of the sweep operator (Goodnight 1979), a rank-one change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secateur.coupling.consumers import Consumer
from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.errors import BudgetError, SurgeryError
from secateur.graph.operators import module_path
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.masking.ablation import MeanAblation, Means, consumer_key
from secateur.masking.operand_overrides import operand_override
from secateur.masking.operands import operand, recorded_operand
from secateur.masking.row_products import RowProducts

RIDGE = 1e-6  # of the mean variance
MOST_ENTRIES = 4096
MOST_STEPS = 64  # sweeps before it is solved anew, as rounding adds up


@dataclass(frozen=True)
class ConsumerMoments:
    """The means (entries,) and covariances (entries, entries) of a consumer's input, in float64."""

    means: Tensor
    covariances: Tensor


def consumer_moments(network: Network, batches: Iterable[Batch]) -> dict[str, ConsumerMoments]:
    """Compute the moments of every consumer that a repair can refit, over all examples and positions.

    Raises:
        BudgetError: a consumer reads more than 4,096 entries.
    """
    consumers = [consumer for consumer in network.consumers if consumer.fold is not None]
    for consumer in consumers:
        if len(consumer.units) > MOST_ENTRIES:
            raise BudgetError(
                f"{module_path(consumer.node)} reads {len(consumer.units):,} entries, too many to predict from each "
                "other; take ablation='mean', or skip= the groups that it reads"
            )
    sums: dict[str, tuple[Tensor, RowProducts]] = {}
    handlers = {consumer.node: _summing_override(consumer, sums) for consumer in consumers}
    with torch.no_grad():
        for batch in batches:
            network.program.forward(batch, handlers)
    return {key: _moments_of(total, products) for key, (total, products) in sums.items()}


def _summing_override(consumer: Consumer, sums: dict[str, tuple[Tensor, RowProducts]]) -> OpOverride:
    """Return the operator that adds its input's rows, and their products, to the sums of its key."""
    key = consumer_key(consumer)

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = operand(consumer, args, kwargs).movedim(consumer.dim, -1)
        rows = x.reshape(-1, len(consumer.units)).cpu().double()
        total, products = sums.get(key, (torch.zeros((), dtype=torch.float64), RowProducts()))
        products.add(rows[None])
        sums[key] = total + rows.sum(0), products
        return target(*args, **kwargs)

    return handler


def _moments_of(total: Tensor, products: RowProducts) -> ConsumerMoments:
    """Return the moments from sums over rows, with a small ridge on the covariances."""
    mean = total / products.count
    covariances = products.summed()[0] / products.count - torch.outer(mean, mean)
    floor = RIDGE * covariances.diagonal().mean().clamp_min(1e-12)
    return ConsumerMoments(mean, covariances + floor * torch.eye(len(mean), dtype=torch.float64))


class LinearImputer(MeanAblation):
    """Ablation that predicts absent units from the kept ones, for every consumer that a repair can refit.

    Args:
        means: as for `MeanAblation`, for the consumers that no repair refits.
        moments: of each consumer.
    """

    def __init__(self, means: Means, moments: Mapping[str, ConsumerMoments]) -> None:
        super().__init__(means)
        self._predictors = {key: ImputationWeights(consumer_moments) for key, consumer_moments in moments.items()}

    @property
    def adds_up(self) -> bool:
        """False: predictions depend on all kept units."""
        return False

    def _handler(self, program: Program, consumer: Consumer, present: Tensor) -> OpOverride:
        predictor = self._predictors.get(consumer_key(consumer))
        if predictor is None:
            return super()._handler(program, consumer, present)
        if present.is_floating_point():
            raise SurgeryError(
                f"{module_path(consumer.node)} is predicted from the units that stay, which has no slope"
            )
        return _imputing_override(predictor, program, consumer, present)


def _imputing_override(
    predictor: "ImputationWeights", program: Program, consumer: Consumer, present: Tensor
) -> OpOverride:
    """Return the override that runs a consumer's operator on kept and predicted units."""
    axis = program.batch_axis(recorded_operand(consumer)) or 0

    def fill(x: Tensor) -> Tensor:
        masks, counts = torch.unique_consecutive(present, dim=0, return_counts=True)
        shares = x.split((counts * (x.shape[axis] // len(present))).tolist(), axis)
        pairs = zip(shares, masks, strict=True)
        return torch.cat([predictor.fill(share, consumer.dim, mask) for share, mask in pairs], axis)

    return operand_override(consumer, fill)


class ImputationWeights:
    """Best linear predictions of some entries from the others, by the sweep operator.

    Args:
        moments: of all entries.
    """

    def __init__(self, moments: ConsumerMoments) -> None:
        self.moments = moments
        self._swept = moments.covariances.clone()
        self._known = torch.zeros(len(moments.means), dtype=torch.bool)
        self._steps = 0

    def coefficients(self, is_known: Tensor) -> Tensor:
        """Return the coefficients that predict the unknown entries from the known ones. (unknown, known)"""
        is_known = is_known.cpu()
        changed_units = torch.nonzero(is_known != self._known).flatten().tolist()
        if len(changed_units) > len(is_known) // 4 or self._steps + len(changed_units) > MOST_STEPS:
            self._solve(is_known)
        for entry in torch.nonzero(is_known != self._known).flatten().tolist():
            self._sweep(entry)
        return self._swept[~is_known][:, is_known]

    def fill(self, x: Tensor, dim: int, is_known: Tensor) -> Tensor:
        """Replace the unknown entries along an axis by their predictions."""
        if bool(is_known.all()):
            return x
        coefficients = torch.zeros_like(self._swept)  # (entries, entries); selecting entries of x would take longer
        coefficients[(~is_known.cpu()).nonzero(), is_known.cpu().nonzero().T] = self.coefficients(is_known)
        means, rows = self.moments.means.to(x), x.movedim(dim, -1)
        predictions = functional.linear(rows - means, coefficients.to(x)) + means
        return torch.where(is_known.to(x.device), rows, predictions).movedim(-1, dim)

    def _solve(self, is_known: Tensor) -> None:
        """Sweep the covariances with all known entries at once."""
        covariances, unknown = self.moments.covariances, ~is_known
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariances[is_known][:, is_known]))
        across = covariances[unknown][:, is_known] @ inverse
        swept_covariances = torch.empty_like(covariances)
        swept_covariances[is_known.nonzero(), is_known.nonzero().T] = -inverse
        swept_covariances[unknown.nonzero(), is_known.nonzero().T] = across
        swept_covariances[is_known.nonzero(), unknown.nonzero().T] = across.T
        residual = covariances[unknown][:, unknown] - across @ covariances[is_known][:, unknown]
        swept_covariances[unknown.nonzero(), unknown.nonzero().T] = residual
        self._swept, self._known, self._steps = swept_covariances, is_known.clone(), 0

    def _sweep(self, entry: int) -> None:
        """Sweep one entry in or out."""
        sign = -1.0 if self._known[entry] else 1.0
        pivot = self._swept[entry, entry].clone()
        column = self._swept[:, entry].clone()
        self._swept -= torch.outer(column, column) / pivot
        self._swept[:, entry] = self._swept[entry, :] = sign * column / pivot
        self._swept[entry, entry] = -1 / pivot
        self._known[entry] = not self._known[entry]
        self._steps += 1

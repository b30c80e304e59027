"""Removal as it will be after a repair: an absent unit is replaced by its best linear prediction from those that stay.

The prediction is by least squares over the examples, place by place, from the covariances of what each reader reads. A
cut network whose readers are refitted by least squares comes to the same, as far as one place of an image can tell.
Along an order each unit that goes or comes is one step of the sweep operator (Goodnight 1979), a rank-one change.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.network import Consumer, Network
from secateur.data.batch import Batch
from secateur.errors import BudgetError, SurgeryError
from secateur.graph.program import OpFn, OpOverride, Program, module_path
from secateur.masking.ablation import MeanAblation, Means, changed, consumer_key, operand, recorded_operand

RIDGE = 1e-6  # of the mean variance
MOST_ENTRIES = 4096
MOST_STEPS = 64  # sweeps before it is solved anew, as rounding adds up


@dataclass(frozen=True)
class ConsumerMoments:
    """Means (entries,) and covariances (entries, entries) of what a reader reads, in float64."""

    means: Tensor
    covariances: Tensor


def consumer_moments(network: Network, batches: Iterable[Batch]) -> dict[str, ConsumerMoments]:
    """The moments of every reader that a repair can refit, over all examples and places.

    Raises:
        BudgetError: a reader reads more than 4,096 entries.
    """
    consumers = [consumer for consumer in network.consumers if consumer.fold is not None]
    for consumer in consumers:
        if len(consumer.units) > MOST_ENTRIES:
            raise BudgetError(
                f"{module_path(consumer.node)} reads {len(consumer.units):,} entries, too many to predict from each "
                "other; take ablation='mean', or skip= the groups that it reads"
            )
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    products: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    counts: defaultdict[str, int] = defaultdict(int)

    def watch(consumer: Consumer) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows = (
                operand(consumer, args, kwargs)
                .movedim(consumer.dim, -1)
                .reshape(-1, len(consumer.units))
                .cpu()
                .double()
            )
            key = consumer_key(consumer)
            sums[key], products[key] = sums[key] + rows.sum(0), products[key] + rows.T @ rows
            counts[key] += len(rows)
            return target(*args, **kwargs)

        return handler

    handlers = {consumer.node: watch(consumer) for consumer in consumers}
    with torch.no_grad():
        for batch in batches:
            network.program.forward(batch, handlers)
    found = {}
    for key, total in sums.items():
        mean = total / counts[key]
        covariances = products[key] / counts[key] - torch.outer(mean, mean)
        floor = RIDGE * covariances.diagonal().mean().clamp_min(1e-12)
        found[key] = ConsumerMoments(mean, covariances + floor * torch.eye(len(mean), dtype=torch.float64))
    return found


class LinearImputer(MeanAblation):
    """Absent units are predicted from those that stay, wherever a repair can refit the reader.

    Args:
        means: as for `Removal`, for the readers that no repair refits.
        moments: of each reader.
    """

    def __init__(self, means: Means, moments: Mapping[str, ConsumerMoments]) -> None:
        super().__init__(means)
        self._predictors = {key: ImputationWeights(each) for key, each in moments.items()}

    @property
    def adds_up(self) -> bool:
        return False

    def _handler(self, program: Program, consumer: Consumer, present: Tensor) -> OpOverride:
        predictor = self._predictors.get(consumer_key(consumer))
        if predictor is None:
            return super()._handler(program, consumer, present)
        if present.is_floating_point():
            raise SurgeryError(
                f"{module_path(consumer.node)} is predicted from the units that stay, which has no slope"
            )
        return _predicted(predictor, program, consumer, present)


def _predicted(predictor: "ImputationWeights", program: Program, consumer: Consumer, present: Tensor) -> OpOverride:
    """The reader's operator on what stays and what is predicted."""
    axis = program.batch_axis(recorded_operand(consumer)) or 0

    def filled(x: Tensor) -> Tensor:
        parts = x.chunk(len(present), axis) if len(present) > 1 else [x]
        pairs = zip(parts, present, strict=True)
        return torch.cat([predictor.fill(part, consumer.dim, mask) for part, mask in pairs], axis)

    return changed(consumer, filled)


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

    def coefficients(self, known: Tensor) -> Tensor:
        """How the unknown entries depend on the known ones. (unknown, known)"""
        known = known.cpu()
        changed = torch.nonzero(known != self._known).flatten().tolist()
        if len(changed) > len(known) // 4 or self._steps + len(changed) > MOST_STEPS:
            self._solve(known)
        for entry in torch.nonzero(known != self._known).flatten().tolist():
            self._sweep(entry)
        return self._swept[~known][:, known]

    def fill(self, x: Tensor, dim: int, known: Tensor) -> Tensor:
        """The tensor with predictions in the place of unknown entries along an axis."""
        if bool(known.all()):
            return x
        matrix, means = self.coefficients(known).to(x), self.moments.means.to(x)
        known = known.to(x.device)
        rows = x.movedim(dim, -1)
        filled = rows.clone()
        filled[..., ~known] = means[~known] + (rows[..., known] - means[known]) @ matrix.T
        return filled.movedim(-1, dim)

    def _solve(self, known: Tensor) -> None:
        """The covariances with all known entries swept, at once."""
        whole, unknown = self.moments.covariances, ~known
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(whole[known][:, known]))
        across = whole[unknown][:, known] @ inverse
        swept = torch.empty_like(whole)
        swept[known.nonzero(), known.nonzero().T] = -inverse
        swept[unknown.nonzero(), known.nonzero().T] = across
        swept[known.nonzero(), unknown.nonzero().T] = across.T
        left = whole[unknown][:, unknown] - across @ whole[known][:, unknown]
        swept[unknown.nonzero(), unknown.nonzero().T] = left
        self._swept, self._known, self._steps = swept, known.clone(), 0

    def _sweep(self, entry: int) -> None:
        """Take one entry among the known, or out of them."""
        sign = -1.0 if self._known[entry] else 1.0
        pivot = self._swept[entry, entry].clone()
        column = self._swept[:, entry].clone()
        self._swept -= torch.outer(column, column) / pivot
        self._swept[:, entry] = self._swept[entry, :] = sign * column / pivot
        self._swept[entry, entry] = -1 / pivot
        self._known[entry] = not self._known[entry]
        self._steps += 1

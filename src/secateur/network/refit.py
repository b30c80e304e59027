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

from secateur.data import Batch
from secateur.errors import BudgetError, SurgeryError
from secateur.network.masked import Means, Removal, changed, operand, reader_key, recorded_operand
from secateur.network.program import Call, Handler, Program, module_path
from secateur.network.units import Network, Reader

RIDGE = 1e-6  # of the mean variance
MOST_ENTRIES = 4096
MOST_STEPS = 64  # sweeps before it is solved anew, as rounding adds up


@dataclass(frozen=True)
class Moments:
    """Means (entries,) and covariances (entries, entries) of what a reader reads, in float64."""

    means: Tensor
    covariances: Tensor


def reader_moments(network: Network, batches: Iterable[Batch]) -> dict[str, Moments]:
    """The moments of every reader that a repair can refit, over all examples and places.

    Raises:
        BudgetError: a reader reads more than 4,096 entries.
    """
    readers = [reader for reader in network.readers if reader.fold is not None]
    for reader in readers:
        if len(reader.units) > MOST_ENTRIES:
            raise BudgetError(
                f"{module_path(reader.node)} reads {len(reader.units):,} entries, too many to predict from each other; "
                "take removal='mean', or skip= the groups that it reads"
            )
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    products: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    counts: defaultdict[str, int] = defaultdict(int)

    def watch(reader: Reader) -> Handler:
        def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows = operand(reader, args, kwargs).movedim(reader.dim, -1).reshape(-1, len(reader.units)).cpu().double()
            key = reader_key(reader)
            sums[key], products[key] = sums[key] + rows.sum(0), products[key] + rows.T @ rows
            counts[key] += len(rows)
            return target(*args, **kwargs)

        return handler

    handlers = {reader.node: watch(reader) for reader in readers}
    with torch.no_grad():
        for batch in batches:
            network.program.forward(batch, handlers)
    found = {}
    for key, total in sums.items():
        mean = total / counts[key]
        covariances = products[key] / counts[key] - torch.outer(mean, mean)
        floor = RIDGE * covariances.diagonal().mean().clamp_min(1e-12)
        found[key] = Moments(mean, covariances + floor * torch.eye(len(mean), dtype=torch.float64))
    return found


class Refit(Removal):
    """Absent units are predicted from those that stay, wherever a repair can refit the reader.

    Args:
        means: as for `Removal`, for the readers that no repair refits.
        moments: of each reader.
    """

    def __init__(self, means: Means, moments: Mapping[str, Moments]) -> None:
        super().__init__(means)
        self._predictors = {key: Predictor(each) for key, each in moments.items()}

    @property
    def adds_up(self) -> bool:
        return False

    def _handler(self, program: Program, reader: Reader, present: Tensor) -> Handler:
        predictor = self._predictors.get(reader_key(reader))
        if predictor is None:
            return super()._handler(program, reader, present)
        if present.is_floating_point():
            raise SurgeryError(f"{module_path(reader.node)} is predicted from the units that stay, which has no slope")
        return _predicted(predictor, program, reader, present)


def _predicted(predictor: "Predictor", program: Program, reader: Reader, present: Tensor) -> Handler:
    """The reader's operator on what stays and what is predicted."""
    axis = program.batch_axis(recorded_operand(reader)) or 0

    def filled(x: Tensor) -> Tensor:
        parts = x.chunk(len(present), axis) if len(present) > 1 else [x]
        pairs = zip(parts, present, strict=True)
        return torch.cat([predictor.fill(part, reader.dim, mask) for part, mask in pairs], axis)

    return changed(reader, filled)


class Predictor:
    """Best linear predictions of some entries from the others, by the sweep operator.

    Args:
        moments: of all entries.
    """

    def __init__(self, moments: Moments) -> None:
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

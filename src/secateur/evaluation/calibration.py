"""The examples that a network is planned and repaired with, prepared once and handed on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.evaluation.holdout import split_holdout


@dataclass(frozen=True, eq=False)
class Calibration:
    """The examples that plans are tried with and repairs are fitted to.

    Args:
        network: the traced network.
        microbatches: the examples, on the network's device.
        dense: the dense model, its parametrizations baked in; None where no model is at hand.
    """

    network: Network
    microbatches: Sequence[Batch]
    dense: nn.Module | None = None

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(batch.size or 1 for batch in self.microbatches)

    @property
    def fitted(self) -> Sequence[Batch]:
        """Three quarters of the examples, for fitting."""
        return self._split[0]

    @property
    def held_out(self) -> Sequence[Batch]:
        """The last quarter of the examples, for evaluation."""
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[list[Batch], list[Batch]]:
        return split_holdout(self.microbatches, self.network.program.batched is not None)

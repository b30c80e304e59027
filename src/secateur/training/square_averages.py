"""Exponential averages of squared derivatives, by group."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.errors import SurgeryError


class SquareAverages:
    """The sums of squared derivatives since the last removal, and their exponential averages over removals.

    Args:
        sizes: the number of units of each group.

    Attributes:
        averages: the averages at the last removal, by group.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._removals = 0
        self._sums = {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}
        self.averages = {name: torch.zeros_like(total) for name, total in self._sums.items()}

    def add(self, name: str, squares: Tensor) -> None:
        """Add the squared derivatives of one step in one group, (units,)."""
        self._sums[name] = self._sums[name] + squares

    def update(self, steps: int, decay: float) -> None:
        """Combine the mean over the steps since the last removal with the averages, and begin new sums.

        Args:
            steps: the number of these steps.
            decay: the weight of the averages so far; the first mean replaces them.
        """
        decay = decay if self._removals else 0.0
        for name, total in self._sums.items():
            self.averages[name] = decay * self.averages[name] + (1 - decay) * total / steps
            self._sums[name] = torch.zeros_like(total)
        self._removals += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of removals, the sums and the averages."""
        return {"removals": self._removals, "sums": dict(self._sums), "averages": dict(self.averages)}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state has these groups.

        Raises:
            SurgeryError: It belongs to another network.
        """
        sizes = {name: total.shape for name, total in self._sums.items()}
        for totals in (state["sums"], state["averages"]):
            if {name: total.shape for name, total in totals.items()} != sizes:
                raise SurgeryError(
                    f"the state is of other groups than {', '.join(sizes)}; resume with the model and the options that "
                    "the state was saved with"
                )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that was checked."""
        self._removals = int(state["removals"])
        self._sums, self.averages = dict(state["sums"]), dict(state["averages"])

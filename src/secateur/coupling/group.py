"""A group: units of one kind, and the axes on which they lie."""

from dataclasses import dataclass

from torch import Tensor

from secateur.coupling.members import TensorAxis
from secateur.options.call_checks import checked_calls


@checked_calls
@dataclass(frozen=True, eq=False)
class Group:
    """Units of one kind that can be compared with each other.

    Args:
        name: the first module that makes them.
        size: the number of units.
        offset: the number of the first unit in the network; the others follow.
        kind: "channels" of convolutions, "neurons" of linear layers, "residual" for the width that sums hold together,
            "heads" of attention or "head width", the same positions of all heads, "experts" of a mixture, "bundles" of
            heads with their share of the width, or whole "blocks".
        members: the axes on which the units lie.
        dropouts: names of the dropout modules that act on them.
        fewest: the least number to keep: 2 where the model's own code drops an axis of length 1.
        block_paths: of blocks, the path of each.
        multiple: a number of which the model's kernels require multiples; the number of kept units is one.
    """

    name: str
    size: int
    offset: int
    kind: str
    members: tuple[TensorAxis, ...]
    dropouts: tuple[str, ...]
    fewest: int = 1
    block_paths: tuple[str, ...] = ()
    multiple: int = 1

    @property
    def span(self) -> slice:
        """The numbers of its units in the network."""
        return slice(self.offset, self.offset + self.size)

    def owns(self, units: Tensor) -> bool:
        """Return whether any of these units of the network belongs to the group."""
        return bool(((units >= self.offset) & (units < self.offset + self.size)).any())

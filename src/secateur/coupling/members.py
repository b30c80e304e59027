"""Axes of tensors and attributes of modules that units own entries of, and units that can't be removed."""

from dataclasses import dataclass

from torch import Tensor

from secateur.coupling.cost import WHOLE


@dataclass(frozen=True, eq=False)
class TensorAxis:
    """One axis of one parameter or buffer that units own entries of.

    Args:
        tensor: the parameter's or buffer's name in the model.
        axis: the axis; `WHOLE` where a unit owns the tensor as a whole.
        units: for each index along the axis the number of its unit in the network, -1 where it is frozen.
        is_producer: whether the axis makes the units (a weight's filters) or only follows them.
    """

    tensor: str
    axis: int
    units: Tensor
    is_producer: bool = False

    def __str__(self) -> str:
        return self.tensor if self.axis == WHOLE else f"{self.tensor}[{self.axis}]"


@dataclass(frozen=True, eq=False)
class AttributeUpdate:
    """An attribute of a module that was found to count units, and must follow when they are removed.

    Args:
        path: the module's path.
        attribute: the attribute's name.
        position: the position in the attribute where it is a tuple or a list, else None.
        units: the unit of each entry that it counts.
    """

    path: str
    attribute: str
    position: int | None
    units: Tensor

    @property
    def key(self) -> tuple[str, str, int | None]:
        """The number that it updates: path, attribute and position."""
        return self.path, self.attribute, self.position


@dataclass(frozen=True)
class Frozen:
    """Units that can't be removed.

    Args:
        name: the layer that makes them.
        units: their number.
        operator, module: the operator that freezes them and the module that calls it, "" where no operator does.
        reason: the end of a sentence about them.
    """

    name: str
    units: int
    operator: str
    module: str
    reason: str

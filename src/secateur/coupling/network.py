"""What tracing finds: groups of units, where they lie in the parameters, and who reads them."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.cost import WHOLE, Cost, TensorCost, Work, cost_of
from secateur.coupling.rules.registry import rule_of
from secateur.coupling.shape_literals import ShapeLiteral
from secateur.coupling.summary import network_table
from secateur.data.batch import Batch
from secateur.data.conversion import BATCH_SIZE
from secateur.errors import NameMatchError
from secateur.graph.module_program import ModuleProgram
from secateur.graph.program import Program
from secateur.graph.random_draws import Draw

Kept = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TensorAxis:
    """One axis of one parameter or buffer that units own entries of.

    Args:
        tensor: the parameter's or buffer's name in the model.
        axis: the axis.
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
class ConstantSink:
    """Where the constant goes that a reader receives from removed units.

    Args:
        weight: the reader's weight.
        tensor: what takes the constant.
        kind: "bias": it is added there; "running_mean": it is taken from the batch norm behind; "new": a bias is made.
        inner: the axis of the weight that is contracted.
        groups: of a grouped convolution.
        outputs: for each entry of the reader's result the number of its unit, -1 where it is frozen.
    """

    weight: str
    tensor: str
    kind: str
    inner: int
    groups: int
    outputs: Tensor


@dataclass(frozen=True, eq=False)
class Consumer:
    """An operator that contracts over an axis on which units lie.

    Args:
        node: the operator in the program.
        argument: the name of the argument that holds the units.
        dim: its axis.
        units: for each index along the axis the number of its unit in the network, -1 where it is frozen.
        fold: where a constant input can go; None where it can't, and absent units count as zero.
    """

    node: Node
    argument: str
    dim: int
    units: Tensor
    fold: ConstantSink | None

    @property
    def is_inner(self) -> bool:
        """Whether it is a recurrent layer that reads its own hidden units, through its weights."""
        recurrence = rule_of(self.node).recurrence
        return recurrence is not None and recurrence.weights == self.argument


@dataclass(frozen=True, eq=False)
class Addition:
    """An operator that adds activations of different layers, whose units therefore go together.

    Args:
        node: the operator in the program.
        dim: the axis of its result on which the units lie.
        units: for each index along the axis the number of its unit in the network, -1 where it is frozen.
    """

    node: Node
    dim: int
    units: Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Units of one kind that can be compared with each other.

    Args:
        name: the first module that makes them.
        size: how many there are.
        offset: the number of its first unit in the network; the others follow.
        kind: "channels" of convolutions, "neurons" of linear layers, "residual" for the width that sums hold together,
            "heads" of attention or "head width", the same places of all heads, "experts" of a mixture, "bundles" of
            heads with their share of the width, or whole "blocks".
        members: the axes on which they lie.
        dropouts: names of the dropout modules that act on them.
        fewest: how many must stay: 2 where the model's own code takes an axis of length 1 for none.
        places: of blocks, the path of each.
        multiple: how many stay must be a multiple of this, which the model's kernels insist on.
    """

    name: str
    size: int
    offset: int
    kind: str
    members: tuple[TensorAxis, ...]
    dropouts: tuple[str, ...]
    fewest: int = 1
    places: tuple[str, ...] = ()
    multiple: int = 1

    @property
    def span(self) -> slice:
        return slice(self.offset, self.offset + self.size)

    def owns(self, units: Tensor) -> bool:
        """Whether any of these units of the network is one of the group's."""
        return bool(((units >= self.offset) & (units < self.offset + self.size)).any())


@dataclass(frozen=True, eq=False)
class AttributeUpdate:
    """An attribute of a module that was found to count units, and must follow when they go.

    Args:
        path: the module's.
        attribute: its name.
        position: the place in it where it is a tuple or a list, else None.
        units: the unit of each entry that it counts.
    """

    path: str
    attribute: str
    position: int | None
    units: Tensor

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.path, self.attribute, self.position


@dataclass(frozen=True)
class Frozen:
    """Units that can't be cut: whose, how many, and the operator, module and reason that hold them."""

    name: str
    units: int
    operator: str
    module: str
    reason: str


@dataclass(frozen=True, eq=False)
class Network:
    """A model's units, and its program to try them on.

    `reshaping` names, for each group, the modules whose own code changes the shape of its activations; `sizes` the
    numbers in the program that count units; `mends` the attributes of modules that do; `module_programs` the programs
    of modules whose own code can't say the cut shape, by path; `draws` the units of operators that draw random numbers;
    `additions` the sums of activations along which units go together;
    `as_program` tells that what is cut is the program, not the model's code.
    `print(network)` shows the groups, what they own and what is frozen; `network.cost(plan)` what a plan would leave.
    """

    title: str
    program: Program
    example: Batch
    groups: tuple[Group, ...]
    members: tuple[TensorAxis, ...]
    consumers: tuple[Consumer, ...]
    work: tuple[Work, ...]
    tensors: tuple[TensorCost, ...]
    frozen: tuple[Frozen, ...]
    reshaping: Mapping[str, tuple[str, ...]]
    sizes: tuple[ShapeLiteral, ...] = ()
    mends: tuple[AttributeUpdate, ...] = ()
    module_programs: Mapping[str, ModuleProgram] = field(default_factory=dict)
    draws: tuple[Draw, ...] = ()
    additions: tuple[Addition, ...] = ()
    as_program: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model is now."""
        names = [tensor.name for tensor in self.tensors if tensor.name in self.program.names.values()]
        return self.program.state(names[0]).device if names else torch.device("cpu")

    @property
    def batch_size(self) -> int:
        """How many examples of a data set make a batch: 32, or as many as the model's code fixes."""
        return BATCH_SIZE if self.program.batched is not None else self.example.size or BATCH_SIZE

    @cached_property
    def units(self) -> int:
        """How many units there are in all groups."""
        return sum(group.size for group in self.groups)

    @cached_property
    def by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    def __getitem__(self, name: str) -> Group:
        if name not in self.by_name:
            self.select([name])
        return self.by_name[name]

    def select(self, only: str | Sequence[str] | None = None, skip: str | Sequence[str] | None = None) -> list[Group]:
        """The groups whose names match one of the globs `only` and none of `skip`.

        Raises:
            NameMatchError: a glob matches no group; the nearest names are offered.
        """
        wanted, unwanted = (
            None if globs is None else _matching([globs] if isinstance(globs, str) else globs, list(self.by_name))
            for globs in (only, skip)
        )
        chosen = [group for group in self.groups if wanted is None or group.name in wanted]
        return [group for group in chosen if not unwanted or group.name not in unwanted]

    def mask(self, kept: Kept) -> Tensor:
        """Which units stay, as booleans (units + 1,); the last stands for all that is frozen."""
        mask = torch.ones(self.units + 1, dtype=torch.bool)
        for name, indices in kept.items():
            group = self[name]
            mask[group.span] = False
            mask[group.offset + indices.to("cpu")] = True
        return mask

    def cost(self, plan: "Kept | HasKept | None" = None, folds: bool = False) -> Cost:
        """Parameters, MACs for one example, and bytes of a plan, or of the whole network.

        Args:
            plan: a Plan, or the indices to keep by group name.
            folds: count the biases that mean removal adds where there are none.
        """
        if plan is None:
            return self._dense_cost
        kept: Kept = plan if isinstance(plan, Mapping) else plan.kept
        folds = folds or bool(getattr(plan, "means", None))
        return cost_of(self.mask(kept), self.tensors, self.members, self.work, self.new_biases() if folds else ())

    @cached_property
    def _dense_cost(self) -> Cost:
        return cost_of(self.mask({}), self.tensors, self.members, self.work, ())

    def new_biases(self) -> tuple[Consumer, ...]:
        """Readers without a bias, to which mean removal must give one."""
        return tuple(
            consumer for consumer in self.consumers if consumer.fold is not None and consumer.fold.kind == "new"
        )

    def readers_of(self, group: Group) -> tuple[Consumer, ...]:
        return tuple(consumer for consumer in self.consumers if group.owns(consumer.units))

    def __str__(self) -> str:
        return network_table(self)

    __repr__ = __str__


class HasKept(Protocol):
    """Anything with the indices to keep by group name, such as a Plan."""

    @property
    def kept(self) -> Kept: ...


def _matching(globs: Sequence[str], names: list[str]) -> set[str]:
    found: set[str] = set()
    for glob in globs:
        matched = set(names) & {glob} or set(fnmatch.filter(names, glob))
        if not matched:
            near = get_close_matches(glob, names, 3, 0.3) or names[:5]
            raise NameMatchError(f"no group is named {glob!r}; the nearest are {', '.join(near)}")
        found |= matched
    return found

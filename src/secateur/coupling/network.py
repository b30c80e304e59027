"""A traced network: its groups of units, their consumers and their costs, and its program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from secateur.coupling.config_layout import ConfigLayout
from secateur.coupling.consumers import Consumer, UnitAxis
from secateur.coupling.cost import Cost, TensorCost, Work, cost_of
from secateur.coupling.group import Group
from secateur.coupling.group_plot import plot_group_costs
from secateur.coupling.group_selection import groups_by_module, select_groups
from secateur.coupling.members import AttributeUpdate, Frozen, TensorAxis
from secateur.coupling.shape_literals import ShapeLiteral
from secateur.coupling.summary import network_dict, network_line, network_rows, network_table
from secateur.data.batch import Batch
from secateur.data.conversion import BATCH_SIZE
from secateur.errors import NameMatchError
from secateur.graph.module_program import ModuleProgram
from secateur.graph.process_bound import ProcessBound
from secateur.graph.program import Program
from secateur.graph.random_draws import Draw
from secateur.options.call_checks import checked_calls
from secateur.options.selections import Selection
from secateur.utils.data_frame import data_frame_of_rows
from secateur.utils.html_table import html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Kept = Mapping[str, Tensor]


@checked_calls
@dataclass(frozen=True, eq=False)
class Network(ProcessBound):
    """A traced model: its units, and its program to run with some of them absent.

    `secateur.trace` returns it. `print(network)` shows the groups, what they own and what is frozen; `network[name]` is
    a group, and `network.cost(plan)` what a plan leaves.

    Args:
        title: the name of the model's class.
        program: the exported program, which shares the model's parameters.
        example: the example that the model was traced with.
        groups: the groups of units that can be removed.
        members: every axis of a parameter or buffer on which units lie.
        consumers: the operators that contract over units.
        work: the MACs of each operator.
        tensors: the parameters and buffers of the model, with their shapes and item sizes.
        frozen: the layers whose units can't be removed, with the reasons.
        reshaping: for each group, the paths of the modules whose own code changes the shape of its activations.
        sizes: the numbers in the program that count units.
        attribute_updates: the attributes of modules that count units, as trial cuts found them.
        module_programs: by path, the programs of modules whose own code can't express the cut shape.
        draws: the operators that draw random numbers, with the units of their results.
        additions: the sums of activations of different layers, whose units are removed together.
        as_program: whether the program is cut, and not the model's own code.
        modules: the modules of the model that was traced, by path.
        layout: what the model's configuration can say, where cuts keep to that.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> network["0"].size, network.units, network.cost().params
        (8, 8, 58)
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
    attribute_updates: tuple[AttributeUpdate, ...] = ()
    module_programs: Mapping[str, ModuleProgram] = field(default_factory=dict)
    draws: tuple[Draw, ...] = ()
    additions: tuple[UnitAxis, ...] = ()
    as_program: bool = False
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    layout: ConfigLayout | None = None

    @property
    def device(self) -> torch.device:
        """The device of the model at present."""
        names = set(self.program.names.values())
        name = next((tensor.name for tensor in self.tensors if tensor.name in names), None)
        return torch.device("cpu") if name is None else self.program.state(name).device

    @property
    def batch_size(self) -> int:
        """The number of examples of a batch: 32, or as many as the model's code fixes."""
        return BATCH_SIZE if self.program.batched is not None else self.example.size or BATCH_SIZE

    @cached_property
    def units(self) -> int:
        """The number of units in all groups."""
        return sum(group.size for group in self.groups)

    @cached_property
    def by_name(self) -> dict[str, Group]:
        """The groups by name."""
        return {group.name: group for group in self.groups}

    @cached_property
    def groups_by_module(self) -> dict[str, set[str]]:
        """The names of the groups of units that each module makes or passes on, by its path."""
        return groups_by_module(self)

    def __getitem__(self, name: str) -> Group:
        """Return a group by its name.

        Raises:
            NameMatchError: no group has that name; the message offers the nearest.
        """
        if name not in self.by_name:
            close_names = get_close_matches(name, self.by_name, 3, 0.3) or list(self.by_name)[:5]
            raise NameMatchError(f"no group is named {name!r}; the nearest are {', '.join(close_names) or 'none'}")
        return self.by_name[name]

    def select(self, only: Selection | None = None, skip: Selection | None = None) -> list[Group]:
        """Return the groups that `only` selects, all by default, and `skip` does not.

        Args:
            only: a name of a group, a glob of names, a module or its path, a class of modules, or several of these.
            skip: the same, of the groups to leave out.

        Raises:
            NameMatchError: nothing is named so; the message offers the nearest names.

        Examples:
            >>> import torch, secateur as sc
            >>> layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4), torch.nn.Linear(4, 2)]
            >>> model = torch.nn.Sequential(*layers)
            >>> network = sc.trace(model, torch.randn(2, 3, 3, 3))
            >>> [group.name for group in network.select(only=torch.nn.Conv2d)]
            ['0']
            >>> [group.name for group in network.select(skip=[model[0]])]
            ['2']
        """
        names = select_groups(self, only, skip)
        return [group for group in self.groups if group.name in names]

    def mask(self, kept: Kept) -> Tensor:
        """Return which units are kept, as booleans (units + 1,); the last stands for all that is frozen.

        Args:
            kept: indices of kept units by group name; groups without indices are kept whole.
        """
        mask = torch.ones(self.units + 1, dtype=torch.bool)
        for name, indices in kept.items():
            group = self[name]
            mask[group.span] = False
            mask[group.offset + indices.to("cpu")] = True
        return mask

    def cost(self, plan: "Kept | HasKept | None" = None, folds: bool = False) -> Cost:
        """Return parameters, MACs for one example, and bytes of a plan, or of the whole network.

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
        """Return the consumers without a bias, to which mean removal must give one."""
        return tuple(
            consumer for consumer in self.consumers if consumer.fold is not None and consumer.fold.kind == "new"
        )

    def consumers_of(self, group: Group) -> tuple[Consumer, ...]:
        """Return the consumers of a group's units."""
        if self.by_name.get(group.name) is not group:
            return tuple(consumer for consumer in self.consumers if group.owns(consumer.units))
        return self._consumers_by_group[group.name]

    @cached_property
    def _consumers_by_group(self) -> dict[str, tuple[Consumer, ...]]:
        """The consumers of each group's units; one pass over all of them."""
        ends = torch.tensor([group.offset + group.size for group in self.groups])
        by_group: dict[str, list[Consumer]] = {group.name: [] for group in self.groups}
        for consumer in self.consumers:
            units = consumer.units[consumer.units >= 0]
            for position in torch.bucketize(units, ends, right=True).unique().tolist():
                by_group[self.groups[position].name].append(consumer)
        return {name: tuple(consumers) for name, consumers in by_group.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the costs, the input shapes that MACs count for, the groups and the frozen layers, as plain values."""
        return network_dict(self)

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row for each group.

        Raises:
            OptionError: pandas is not installed.
        """
        return data_frame_of_rows([{"group": name, **values} for name, values in self.to_dict()["groups"].items()])

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot what each group costs, as fractions of the network's MACs and parameters, in horizontal bars.

        Layers between two groups count in both, so that fractions need not add up to 1.

        Args:
            ax: the axes to plot on; by default those of a new figure.
        """
        return plot_group_costs(self, ax)

    def __str__(self) -> str:
        return network_table(self)

    def __repr__(self) -> str:
        cost = self.cost()
        size = f"params={cost.params}, macs={cost.macs}, groups={len(self.groups)}, units={self.units}"
        return f"Network({self.title!r}, {size})"

    def _repr_html_(self) -> str:
        return html_table(network_line(self), network_rows(self))


class HasKept(Protocol):
    """An object with the indices to keep by group name, such as a Plan."""

    @property
    def kept(self) -> Kept:
        """The indices of kept units by group name."""
        ...

"""The iterative schedule of Molchanov et al. 2019: units are removed, a few at a time, while the network is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.allocation.budget import COUNTED, parse_keep
from secateur.allocation.reachable import check_reachable
from secateur.allocation.remaining_fractions import fractions, fractions_of
from secateur.coupling.group import Group
from secateur.coupling.plan import Budget, Plan
from secateur.errors import BudgetError, TraceError
from secateur.graph.wrappers import unwrap_model
from secateur.importance.registry import CriterionLike, find_criterion
from secateur.importance.score import score
from secateur.options.call_checks import checked_calls
from secateur.options.selections import Selection
from secateur.options.table import check_option
from secateur.surgery.cut import cut
from secateur.training.gate_gradients import TrainingGateGradients
from secateur.training.masks import Masks, clear_all_momentum
from secateur.training.method import TrainingMethod
from secateur.training.optimizer_hooks import check_finite, scale_of
from secateur.training.removal_order import removal_order
from secateur.training.square_averages import SquareAverages
from secateur.training.traced_network import traced_network
from secateur.utils.deprecation import renamed_attribute


@checked_calls
class TaylorSchedule(TrainingMethod):
    """Remove units while a network is trained, by the squared derivative of the loss by each unit's gate.

    The schedule hooks itself to the optimizer, so a training loop of any kind stays as it is. In each step the
    gradients of the minibatch are read before the optimizer uses them (unscaled, where a gradient scaler is at work),
    and removed units are set to zero afterwards. Every `every` steps the squares are averaged and combined with those
    before by an exponential average; of all units in the network those with the lowest average are removed, until the
    budget is met. `cut` then returns the smaller network.

    The authors' released code differs: ties remove more units than requested, and a group can be emptied; here neither
    happens. As there, all momentum is cleared once the last unit is removed; that of removed units is cleared at each
    removal.

    Args:
        model: the model that is trained.
        example_inputs: inputs as `trace` takes them; or a network that was traced.
        optimizer: the optimizer that trains the model.
        keep: the budget, `{"macs": 0.6}`, "params", "bytes" or "units".
        every: steps between removals: 10 on CIFAR, 30 on ImageNet (Molchanov et al.).
        units_per_step: the number of units of one removal; 2 % of all units by default, or `round_to`.
        round_to: units of a group are removed in sets of this size, those with the lowest scores, by the sum of their
            scores (the authors' `group_size`, published with 32), and its number of units is a multiple of this.
            Groups with fewer units lose none.
        decay: the decay of the exponential average.
        by: another criterion, by name or as a function, that replaces the gates at each removal, for comparison; it
            gets `data`.
        data: examples for that criterion, as `score` takes them.
        floor: the fewest units that a group keeps; below 1 a fraction of the group.
        only: the groups that may lose units, as `secateur.score` takes them.
        skip: the groups that are left out, as `secateur.score` takes them.

    Attributes:
        is_finished: whether the budget is met.

    Raises:
        BudgetError: The budget is none of those, or cannot be met.
        TraceError: Nothing can be removed.
        SurgeryError: The model computes weights from others.
        OptionError: The optimizer holds no parameter of the model.

    Examples:
        >>> import torch, secateur as sc
        >>> from secateur.training import TaylorSchedule
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        >>> schedule = TaylorSchedule(model, torch.randn(2, 4), optimizer, {"units": 0.5}, every=2, units_per_step=4)
        >>> while not schedule.is_finished:
        ...     optimizer.zero_grad()
        ...     model(torch.randn(8, 4)).square().mean().backward()
        ...     optimizer.step()
        >>> schedule.cut()
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=2, bias=True)
        )
    """

    done = renamed_attribute("done", "is_finished")

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        optimizer: torch.optim.Optimizer,
        keep: Mapping[str, float | str],
        *,
        every: int = 10,
        units_per_step: int | None = None,
        round_to: int = 1,
        decay: float = 0.9,
        by: CriterionLike | None = None,
        data: Any = None,
        floor: float = 1,
        only: Selection | None = None,
        skip: Selection | None = None,
    ) -> None:
        self.keep = _checked_budget(keep, every, decay, round_to)
        check_option("units_per_step", units_per_step)
        super().__init__(unwrap_model(model), optimizer)
        self.every, self.decay, self.floor, self.round_to = every, decay, floor, round_to
        self.by, self.data = by, data
        if by is not None:
            find_criterion(by)
        self.network = traced_network(self.model, example_inputs)
        selected_groups = self.network.select(only, skip)
        self._selected = [group.name for group in selected_groups]
        self.gates = TrainingGateGradients(self.network, selected_groups)
        self.groups = self._removable_groups(selected_groups)
        check_reachable(self.network, self.groups, self.keep, round_to, floor)
        self.units_per_step = units_per_step or max(round_to, round(0.02 * self.network.units))
        self.masks = Masks(self.model, self.network)
        self.is_finished = self._is_within_budget(self.masks.kept())
        self._squares = SquareAverages({group.name: group.size for group in self.groups})
        self.attach()

    def __repr__(self) -> str:
        units = sum(len(kept) for kept in self.masks.kept().values())
        return f"TaylorSchedule(steps={self.steps}, units={units}/{self.network.units}, is_finished={self.is_finished})"

    @property
    def left_whole(self) -> tuple[str, ...]:
        """The groups that lose no units: their gates can't be read from gradients, or units can't be removed alone."""
        removable = {group.name for group in self.groups}
        return tuple(name for name in self._selected if name not in removable)

    @property
    def averages(self) -> dict[str, Tensor]:
        """The scores of the units at the last removal, by group; those of removed units decay from then on."""
        return dict(self._squares.averages)

    @property
    def plan(self) -> Plan:
        """The plan that keeps the units that are not removed yet."""
        kept = self.masks.kept()
        return Plan(self.network, kept, {}, self.network.cost(kept), self.network.cost(), self.keep)

    def cut(self) -> nn.Module:
        """Return the smaller model; the optimizer continues with it, its state cut with the parameters.

        The dense model keeps its own parameters, with zeros where units were removed.
        """
        small = cut(self.model, self.plan, optimizer=self.optimizer)
        self.release()
        return small

    def method_state(self) -> dict[str, Any]:
        """Return the removed units, and the averages and sums of the squared derivatives."""
        return {**self._squares.state_dict(), "masks": self.masks.state_dict()}

    def check_method_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state has the units and groups of this network.

        Raises:
            SurgeryError: It belongs to another network.
        """
        self.masks.check_state(state["masks"])
        self._squares.check_state(state)

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take over the removed units, the averages and the sums."""
        self.masks.load_state_dict(state["masks"])
        self.is_finished = self._is_within_budget(self.masks.kept())
        self._squares.load_state_dict(state)

    def before_step(self) -> None:
        """Add the squared derivatives of this minibatch."""
        if self.is_finished or self.by is not None:
            return
        scale = scale_of(self.optimizer)
        for name, squares in self.gates.squares(self.masks.parameters).items():
            check_finite(squares, self.steps + 1, name)
            self._squares.add(name, squares / scale**2)

    def after_step(self) -> None:
        """Set removed units to zero again, and remove further ones where it is time."""
        self.masks.apply()
        if self.steps % self.every or self.is_finished:
            return
        self._squares.update(self.every, self.decay)
        if self.by is not None:
            self._squares.averages = self._scores_by(self.by)
        self._remove(self._squares.averages)

    def _removable_groups(self, selected_groups: Sequence[Group]) -> list[Group]:
        """Return the groups that lose units.

        Raises:
            TraceError: There are none.
        """
        groups = self.gates.groups if self.by is None else [group for group in selected_groups if group.multiple == 1]
        if not groups:
            lacks = "gates whose gradients can be read" if self.by is None else "units that can be removed one by one"
            raise TraceError(f"no group of this network has {lacks}\n{self.network}")
        return groups

    def _scores_by(self, by: CriterionLike) -> dict[str, Tensor]:
        """Return the scores of another criterion, of the network as it is now."""
        only = [group.name for group in self.groups]
        scores = score(self.network, self.data, by, only=only, seed=self.steps, ablation="zero", progress=False)
        return {name: scores[name].values for name in scores}

    def _remove(self, scores: Mapping[str, Tensor]) -> None:
        """Remove the lowest of all units, as many as one removal takes or until the budget is met."""
        removed_units: list[int] = []
        for units in removal_order(self.groups, self.masks.alive, scores, self.round_to, self.floor):
            if removed_units and len(removed_units) + len(units) > self.units_per_step:
                break
            removed_units += units
            if self._is_within_budget(self.masks.kept_without(removed_units)):
                break
        self.masks.remove(torch.tensor(removed_units, dtype=torch.long))
        self.masks.clear_momentum(self.optimizer)
        self.is_finished = self._is_within_budget(self.masks.kept())
        if self.is_finished:
            clear_all_momentum(self.optimizer)

    def _is_within_budget(self, kept: Mapping[str, Tensor]) -> bool:
        limits = fractions_of(self.network, self.keep)
        remaining = fractions(self.network, kept, self.network.cost(kept), list(limits), None)
        return all(remaining[unit] <= fraction for unit, fraction in limits.items())


def _checked_budget(keep: Mapping[str, float | str], every: int, decay: float, round_to: int) -> Budget:
    """Return the parsed budget of a schedule.

    Raises:
        BudgetError: The budget or a number is out of range.
    """
    check_option("round_to", round_to)
    budget: Budget = parse_keep(keep)
    if not set(budget) <= set(COUNTED) or every < 1 or not 0 <= decay < 1:
        raise BudgetError(
            f"keep={dict(keep)!r}, every={every}, decay={decay}: a schedule takes fractions of "
            f"{', '.join(COUNTED)}, at least one step between removals, and a decay from 0 to below 1"
        )
    return budget

"""The iterative schedule of Molchanov et al. 2019: units go, a few at a time, while the network is trained."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.allocation.budget import COUNTED, parse_keep
from secateur.allocation.reachable import check_reachable
from secateur.allocation.remaining_fractions import fractions, fractions_of
from secateur.coupling.plan import Budget, Plan
from secateur.errors import BudgetError, TraceError
from secateur.evaluation.channel_steps import sizes_in_steps
from secateur.graph.wrappers import unwrapped
from secateur.importance.registry import Criterion, find_criterion
from secateur.importance.score import score
from secateur.options import check_option
from secateur.surgery.cut import cut
from secateur.tracing import trace
from secateur.training.gate_gradients import TrainingGateGradients
from secateur.training.masks import Masks, clear_all_momentum
from secateur.training.optimizer_hooks import (
    attach_optimizer_hooks,
    check_finite,
    check_same_model,
    is_skipped,
    scale_of,
)


class TaylorSchedule:
    """Cut a network while it is trained, by the squared derivative of the loss by each unit's gate.

    It hooks itself to the optimizer, so a training loop of any kind stays as it is: at each step the gradients of the
    minibatch are read before they are used (unscaled, where a gradient scaler is at work), and units that are gone are
    held at zero afterwards. Every `every` steps the squares are averaged, joined with those before by an exponential
    average, and of all units in the network those with the lowest go, until the budget is met. Then `cut` takes them
    out.

    What the authors' released code does otherwise: ties remove more than asked, and a group can be emptied; here
    neither happens. As there, all momentum is cleared once the last unit is gone; that of removed units is cleared at
    each removal.

    Args:
        model: the model that is trained.
        example_inputs: as `trace` takes them; or a network that was traced.
        optimizer: the optimizer that trains it.
        keep: the budget, `{"macs": 0.6}`, "params", "bytes" or "units".
        every: steps between removals: 10 on CIFAR, 30 on ImageNet (Molchanov et al.).
        units_per_step: how many go at a time; 2 % of all units by default, or `round_to`.
        round_to: units of a group go so many together, the lowest, by the sum of their scores (the authors'
            `group_size`, published with 32), and its number of units is a multiple of this. Groups with fewer stay
            whole.
        decay: of the exponential average.
        by: another criterion, by name or as a function, that takes the place of the gates at each removal, for
            comparison; it gets `data`.
        data: examples for that criterion, as `score` takes them.
        floor: the fewest units that a group keeps; below 1 a fraction of the group.
        only, skip: globs of the names of groups.

    `done` tells whether the budget is met.

    Raises:
        BudgetError: the budget is none of those, or can't be met.
        TraceError: nothing can be cut.
        SurgeryError: the model computes weights from others.
        OptionError: the optimizer holds no parameter of the model.

    Example:
        >>> import torch, secateur as sc
        >>> from secateur.training import TaylorSchedule
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        >>> schedule = TaylorSchedule(model, torch.randn(2, 4), optimizer, {"units": 0.5}, every=2, units_per_step=4)
        >>> while not schedule.done:
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
        by: str | Criterion | None = None,
        data: Any = None,
        floor: float = 1,
        only: str | Sequence[str] | None = None,
        skip: str | Sequence[str] | None = None,
    ) -> None:
        check_option("round_to", round_to)
        self.keep: Budget = parse_keep(keep)
        if not set(self.keep) <= set(COUNTED) or every < 1 or not 0 <= decay < 1:
            raise BudgetError(
                f"keep={dict(keep)!r}, every={every}, decay={decay}: a schedule takes fractions of "
                f"{', '.join(COUNTED)}, at least one step between removals, and a decay from 0 to below 1"
            )
        model = unwrapped(model)
        check_same_model(optimizer, model)
        self.model, self.optimizer, self.every, self.decay = model, optimizer, every, decay
        self.floor, self.round_to = floor, round_to
        self.network = trace(model, example_inputs)
        self.by, self.data = by, data
        if by is not None:
            find_criterion(by)
        selected = self.network.select(only, skip)
        self._selected = [group.name for group in selected]
        self.slopes = TrainingGateGradients(self.network, selected)
        self.groups = self.slopes.groups if by is None else [group for group in selected if group.multiple == 1]
        if not self.groups:
            what = "has gates whose gradients can be read" if by is None else "has units that can go one by one"
            raise TraceError(f"no group of this network {what}\n{self.network}")
        check_reachable(self.network, self.groups, self.keep, round_to, floor)
        self.units_per_step = units_per_step or max(round_to, round(0.02 * self.network.units))
        self.masks = Masks(model, self.network)
        self.steps = 0
        self.done = self._within(self.masks.kept())
        self._removals = 0
        self._sums = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in self.groups}
        self._averages = {name: torch.zeros_like(total) for name, total in self._sums.items()}
        self._hooks = attach_optimizer_hooks(optimizer, self._accumulate, self._after)

    @property
    def left_whole(self) -> tuple[str, ...]:
        """Groups that stay whole: their gates can't be read from gradients (attention products, recurrent layers), or
        their units can't go one by one."""
        removable = {group.name for group in self.groups}
        return tuple(name for name in self._selected if name not in removable)

    @property
    def averages(self) -> dict[str, Tensor]:
        """What the units were worth at the last removal, by group; that of removed units fades from then on."""
        return dict(self._averages)

    @property
    def plan(self) -> Plan:
        """The units that stay."""
        kept = self.masks.kept()
        return Plan(self.network, kept, {}, self.network.cost(kept), self.network.cost(), self.keep)

    def cut(self) -> nn.Module:
        """The small model; the optimizer goes on with it, its state cut with the parameters.

        The dense model's own parameters stay as they are, with zeros where units went.
        """
        small = cut(self.model, self.plan, optimizer=self.optimizer)
        for hook in self._hooks:
            hook.remove()
        return small

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after an interruption, beside the model's and the optimizer's own states."""
        return {
            "steps": self.steps,
            "removals": self._removals,
            "sums": {name: total.clone() for name, total in self._sums.items()},
            "averages": {name: average.clone() for name, average in self._averages.items()},
            "masks": self.masks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            SurgeryError: it is of another network.
        """
        self.masks.load_state_dict(state["masks"])
        self.done = self._within(self.masks.kept())
        self.steps, self._removals = int(state["steps"]), int(state["removals"])
        self._sums, self._averages = dict(state["sums"]), dict(state["averages"])

    def _accumulate(self) -> None:
        if self.done or self.by is not None or is_skipped(self.optimizer):
            return
        scale = scale_of(self.optimizer)
        for name, squares in self.slopes.squares(self.masks.parameters).items():
            check_finite(squares, self.steps + 1, name)
            self._sums[name] = self._sums[name] + squares / scale**2

    def _after(self) -> None:
        if is_skipped(self.optimizer):
            return
        self.masks.apply()
        self.steps += 1
        if self.steps % self.every or self.done:
            return
        decay = self.decay if self._removals else 0.0
        for name, total in self._sums.items():
            self._averages[name] = decay * self._averages[name] + (1 - decay) * total / self.every
            self._sums[name] = torch.zeros_like(total)
        self._removals += 1
        if self.by is not None:
            self._averages = self._scored(self.by)
        self._remove(self._averages)

    def _scored(self, by: str | Criterion) -> dict[str, Tensor]:
        """What another criterion says of the network as it is now."""
        only = [group.name for group in self.groups]
        scores = score(self.network, self.data, by, only=only, seed=self.steps, ablation="zero", progress=False)
        return {name: scores[name].values for name in scores}

    def _remove(self, values: Mapping[str, Tensor]) -> None:
        """The lowest of all units go, as many as a step takes or until the budget is met."""
        gone: list[int] = []
        for units in self._in_order(values):
            if gone and len(gone) + len(units) > self.units_per_step:
                break
            gone += units
            if self._within(self._without(gone)):
                break
        self.masks.remove(torch.tensor(gone, dtype=torch.long))
        self.masks.clear_momentum(self.optimizer)
        self.done = self._within(self.masks.kept())
        if self.done:
            clear_all_momentum(self.optimizer)

    def _in_order(self, values: Mapping[str, Tensor]) -> list[list[int]]:
        """The units that can go, those together that go together, the lowest sums of scores first."""
        sets: list[tuple[float, list[int]]] = []
        for group in self.groups:
            alive = torch.nonzero(self.masks.alive[group.span]).flatten()
            ranked = alive[values[group.name][alive].argsort(stable=True)]
            first = len(ranked) % self.round_to or self.round_to
            fewest, highest = int(sizes_in_steps(group, self.round_to, self.floor)[0]), -math.inf
            for stop in range(first, len(ranked) - fewest + 1, self.round_to):
                units = ranked[max(stop - self.round_to, 0) : stop]
                highest = max(highest, float(values[group.name][units].sum()))  # those of a group go in their order
                sets.append((highest, (group.offset + units).tolist()))
        return [units for _, units in sorted(sets, key=lambda each: each[0])]

    def _without(self, gone: list[int]) -> dict[str, Tensor]:
        alive = self.masks.alive.clone()
        alive[gone] = False
        return {group.name: torch.nonzero(alive[group.span]).flatten() for group in self.network.groups}

    def _within(self, kept: Mapping[str, Tensor]) -> bool:
        limits = fractions_of(self.network, self.keep)
        left = fractions(self.network, kept, self.network.cost(kept), list(limits), None)
        return all(left[unit] <= fraction for unit, fraction in limits.items())

"""Plans that an interrupted run chose, as states of a checkpoint."""

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from secateur.allocation.fixed_sizes import removal_orders
from secateur.coupling.effective_macs import effective_macs
from secateur.coupling.metric_change import MetricChange
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget, Plan
from secateur.files.state_memo import State, StateMemo, key_of
from secateur.importance.scores import Scores


def recall_plan(results: StateMemo, network: Network, scores: Scores, keep: Budget, choose: Callable[[], Plan]) -> Plan:
    """Return the plan that was chosen before, or choose it and keep it.

    Args:
        results: the results of an interrupted run, by key.
        network: the network.
        scores: of its units.
        keep: the budget.
        choose: chooses the plan.
    """
    new_plans: list[Plan] = []

    def compute() -> State:
        new_plans.append(choose())
        return _state_of(new_plans[0])

    values = {name: group_scores.values for name, group_scores in scores.items()}
    state = results.recall(key_of("plan", dict(keep), values), compute)
    return new_plans[0] if new_plans else _plan_of(state, network, scores)


def _state_of(plan: Plan) -> State:
    return {
        "kept": dict(plan.kept),
        "keep": dict(plan.keep),
        "step": None if plan.effective is None else plan.effective.step,
        "notes": list(plan.notes),
        "change": None if plan.change is None else list(astuple(plan.change)),
    }


def _plan_of(state: Any, network: Network, scores: Scores) -> Plan:
    kept, step, change = state["kept"], state["step"], state["change"]
    return Plan(
        network, kept, scores.means, network.cost(kept, bool(scores.means)), network.cost(), state["keep"],
        effective=None if step is None else effective_macs(network, kept, step), notes=tuple(state["notes"]),
        change=None if change is None else MetricChange(*change), ranked=removal_orders(scores),
    )  # fmt: skip

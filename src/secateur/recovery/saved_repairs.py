"""Repairs that an interrupted run did, as states of a checkpoint."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from secateur.errors import StorageError
from secateur.files.state_memo import State, StateMemo
from secateur.recovery.cut_tensors import tensors_by_name
from secateur.recovery.refit import Choices
from secateur.recovery.ridge import Choice
from secateur.recovery.training_task import TrainingSchedule


@dataclass(frozen=True, eq=False)
class RepairOutcome:
    """The outcome of one repair, beside the tensors that it changed.

    Args:
        held_out: the divergences of the examples held out. (examples,)
        fitted: those of as many of the examples that it was fitted to. (examples,)
        choices: the solver's options for each layer, of a refit.
        schedule: how a training ran, None for other repairs.
    """

    held_out: Tensor
    fitted: Tensor
    choices: Choices | None = None
    schedule: TrainingSchedule | None = None


def recalled_repair(
    results: StateMemo,
    key: str,
    repair: Callable[[], tuple[nn.Module, RepairOutcome]],
    copy_unrepaired: Callable[[], nn.Module],
) -> tuple[nn.Module, RepairOutcome]:
    """Return a repaired model, with the tensors that the same repair gave before if it was done.

    Args:
        results: the results of an interrupted run, by key.
        key: what the repair depends on beside the run.
        repair: returns the repaired model and the outcome.
        copy_unrepaired: returns a model for the tensors of an earlier repair.

    Raises:
        StorageError: the tensors that were kept are not those of this model.
    """
    new_repairs: list[tuple[nn.Module, RepairOutcome]] = []

    def compute() -> State:
        new_repairs.append(repair())
        model, outcome = new_repairs[0]
        return _state_of_repair(outcome, model)

    state = results.recall(key, compute)
    if new_repairs:
        return new_repairs[0]
    model, choices = copy_unrepaired(), state["choices"]
    _load(model, state["tensors"])
    saved_choices = None if choices is None else {name: Choice(*choices[name]) for name in choices}
    schedule = state.get("schedule")
    if schedule is not None:
        schedule = TrainingSchedule(**{**schedule, "steps": tuple(schedule["steps"])})
    return model, RepairOutcome(state["held_out"], _fitted_of(state), saved_choices, schedule)


def _fitted_of(state: State) -> Tensor:
    """Return the divergences of the examples that a repair was fitted to; versions before 0.14 named them `seen`."""
    fitted: Tensor = state["fitted"] if "fitted" in state else state["seen"]
    return fitted


def _state_of_repair(outcome: RepairOutcome, model: nn.Module) -> State:
    choices = outcome.choices
    return {
        "held_out": outcome.held_out,
        "fitted": outcome.fitted,
        "choices": None if choices is None else {name: [some.ridge, some.steps] for name, some in choices.items()},
        "schedule": _state_of_schedule(outcome.schedule),
        "tensors": tensors_by_name(model),
    }


def _state_of_schedule(schedule: TrainingSchedule | None) -> State | None:
    return None if schedule is None else {**asdict(schedule), "steps": list(schedule.steps)}


def _load(model: nn.Module, tensors: Any) -> None:
    """Copy tensors into a model.

    Raises:
        StorageError: they are not those of the model.
    """
    present = tensors_by_name(model)
    if {name: tensor.shape for name, tensor in present.items()} != {
        name: tensor.shape for name, tensor in tensors.items()
    }:
        raise StorageError("the repaired weights of the checkpoint are of another cut model; remove the checkpoint")
    for name, value in tensors.items():
        present[name].data.copy_(value)


def copy_tensors(model: nn.Module, source: nn.Module) -> None:
    """Copy the parameters and buffers of one model into another of the same shape."""
    _load(model, tensors_by_name(source))

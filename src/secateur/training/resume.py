"""States of interrupted trainings: a state is validated whole before anything is taken over."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError, StorageError
from secateur.files import write_file
from secateur.files.states import check_alike, read_state, state_writer
from secateur.training.method import TrainingMethod

MOST_STEPS = 1 << 53


def write_training_state(
    path: Path,
    fingerprint: str,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: TrainingMethod | None,
) -> None:
    """Write the state of a training.

    Args:
        path: the file.
        fingerprint: a fingerprint of all that the training depends on.
        step: the number of steps made.
        model: the model as it is now.
        optimizer: the optimizer of the model.
        method: the method that changes the weights, if any.

    Raises:
        StorageError: The file cannot be written; an older file is unchanged.
    """
    state = _Participants(model, optimizer, method).state()
    write_file(path, state_writer({"step": step, **state}, fingerprint))


def read_training_state(
    path: Path,
    fingerprint: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: TrainingMethod | None,
    most_steps: int,
) -> int:
    """Read the state that an earlier run wrote, and load it into the model, the optimizer and the method.

    Args:
        path: the file.
        fingerprint: a fingerprint of all that this training depends on.
        model: the model.
        optimizer: the optimizer of the model.
        method: the method that changes the weights, if any.
        most_steps: the largest number of steps that the state can have.

    Returns:
        The number of steps made.

    Raises:
        StorageError: The file is damaged, or belongs to another training or version; nothing is changed.
    """
    state, saved_fingerprint = read_state(path)
    if saved_fingerprint != fingerprint:
        raise StorageError(
            f"{path} is of another training (another model, other examples or options); give another folder, or "
            "what it was begun with"
        )
    participants = _Participants(model, optimizer, method)
    state_before = copy.deepcopy(participants.state())
    state = {**state, "method": _with_current_names(state.get("method"), state_before["method"])}
    try:
        _check_state(state, state_before, optimizer, most_steps)
    except StorageError as failure:
        raise StorageError(f"{path} can't be resumed from: {failure}; remove it") from failure
    try:
        participants.load(state)
    except (SecateurError, RuntimeError, ValueError, TypeError, KeyError) as failure:
        participants.load(state_before)
        raise StorageError(f"{path} can't be resumed from: {failure}; remove it") from failure
    return int(state["step"])


RENAMED_ENTRIES: Mapping[str, str] = {"done": "is_finished"}  # of the states of methods before version 0.14


def _with_current_names(state: Any, template: Any) -> Any:
    """Return the state of a method with the names that its entries have today."""
    if not isinstance(state, Mapping) or not isinstance(template, Mapping):
        return state
    renamed = {old: new for old, new in RENAMED_ENTRIES.items() if old not in template and new in template}
    return {renamed.get(name, name): value for name, value in state.items()}


@dataclass(frozen=True)
class _Participants:
    """All that a training changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    method: TrainingMethod | None

    def state(self) -> dict[str, Any]:
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "method": None if self.method is None else self.method.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])


def _check_state(
    state: Mapping[str, Any], template: Mapping[str, Any], optimizer: torch.optim.Optimizer, most_steps: int
) -> None:
    """Check that a state has the form of the present one, and finite values.

    Raises:
        StorageError: It does not.
    """
    check_alike(state, {**template, "step": 0, "optimizer": state.get("optimizer")}, "the state")
    if not 0 <= state["step"] <= most_steps:
        raise StorageError(f"it has {state['step']:,} steps, but this training has {most_steps:,}")
    _check_finite(state["model"], "the state.model")
    _check_optimizer(state["optimizer"], optimizer)


def _check_finite(tensors: Mapping[str, Any], location: str) -> None:
    """Check that all numbers are finite.

    Raises:
        StorageError: A number is NaN or infinite.
    """
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise StorageError(f"{location}.{name} is NaN or infinite")


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that a state belongs to an optimizer of this kind and these parameters.

    Raises:
        StorageError: It does not.
    """
    location = "the state.optimizer"
    fresh = optimizer.state_dict()
    if not isinstance(state, dict) or state.keys() != fresh.keys() or not isinstance(state["state"], dict):
        raise StorageError(f"{location} is no state of an optimizer")
    check_alike(state["param_groups"], fresh["param_groups"], f"{location}.param_groups")
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in fresh["param_groups"]]:
        raise StorageError(f"{location} is of other parameters")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, dict):
            raise StorageError(f"{location} has no parameter {number!r}")
        check_alike(values, _state_after_a_step(optimizer, parameters[number]), f"{location}.state.{number}")
        _check_finite(values, f"{location}.state.{number}")


def _state_after_a_step(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """Return the state that an optimizer of this kind keeps of such a parameter after a step."""
    twin = nn.Parameter(torch.zeros_like(parameter))
    twin.grad = torch.zeros_like(parameter)
    probe = type(optimizer)([twin], **optimizer.defaults)
    probe.step()
    return dict(probe.state[twin])

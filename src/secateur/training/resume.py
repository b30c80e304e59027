"""Going on from a state of an interrupted training: validated whole before anything is taken over."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError, StorageError
from secateur.files import write_file
from secateur.files.states import check_alike, read_state, state_writer

MOST_STEPS = 1 << 53


class Method(Protocol):
    """What changes weights while they are trained, and can be gone on with."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""


def write_state(
    path: Path, mark: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, method: Method | None
) -> None:
    """Write the state of a training.

    Args:
        path: the file.
        mark: of all that the training depends on.
        step: the steps that were taken.
        model: as it is now.
        optimizer: of the model.
        method: what changes the weights, if anything.

    Raises:
        StorageError: it can't be written; an older file is as it was.
    """
    state = {
        "step": step,
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "method": None if method is None else method.state_dict(),
    }
    write_file(path, state_writer(state, mark))


def take_over(
    path: Path, mark: str, model: nn.Module, optimizer: torch.optim.Optimizer, method: Method | None, most: int
) -> int:
    """Take over the state that an earlier run wrote.

    Args:
        path: the file.
        mark: of all that this training depends on.
        model: which gets the state, as `optimizer` and `method` do.
        optimizer: of the model.
        method: what changes the weights, if anything.
        most: steps that the state can have taken.

    Returns:
        The steps that were taken.

    Raises:
        StorageError: the file is damaged, of another training or of another version; nothing is changed.
    """
    state, of = read_state(path)
    if of != mark:
        raise StorageError(
            f"{path} is of another training (another model, other examples or options); give another folder, or "
            "what it was begun with"
        )
    before = (copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()))
    method_before = None if method is None else copy.deepcopy(method.state_dict())
    try:
        check_alike(state, {**state, "step": 0, "model": dict(before[0]), "method": method_before}, "the state")
        _check_step(state["step"], most)
        _check_finite(state["model"], "the state.model")
        _check_optimizer(state["optimizer"], optimizer)
    except StorageError as failure:
        raise StorageError(f"{path} can't be gone on with: {failure}; remove it") from failure
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if method is not None:
            method.load_state_dict(state["method"])
    except (SecateurError, RuntimeError, ValueError, TypeError, KeyError) as failure:
        model.load_state_dict(before[0])
        optimizer.load_state_dict(before[1])
        if method is not None and method_before is not None:
            method.load_state_dict(method_before)
        raise StorageError(f"{path} can't be gone on with: {failure}; remove it") from failure
    return int(state["step"])


def _check_step(step: int, most: int) -> None:
    """
    Raises:
        StorageError: so many steps can't have been taken.
    """
    if not 0 <= step <= most:
        raise StorageError(f"{step:,} steps were taken, where {most:,} are asked for")


def _check_finite(tensors: Mapping[str, Any], place: str) -> None:
    """
    Raises:
        StorageError: a number is NaN or infinite.
    """
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise StorageError(f"{place}.{name} is NaN or infinite")


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """
    Raises:
        StorageError: the state is not one of this optimizer.
    """
    place = "the state.optimizer"
    fresh = optimizer.state_dict()
    if not isinstance(state, dict) or state.keys() != fresh.keys() or not isinstance(state["state"], dict):
        raise StorageError(f"{place} is no state of an optimizer")
    check_alike(state["param_groups"], fresh["param_groups"], f"{place}.param_groups")
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in fresh["param_groups"]]:
        raise StorageError(f"{place} is of other parameters")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(values, dict):
            raise StorageError(f"{place} has no parameter {number!r}")
        check_alike(values, _stepped(optimizer, parameters[number]), f"{place}.state.{number}")
        _check_finite(values, f"{place}.state.{number}")


def _stepped(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """What an optimizer of this kind keeps of such a parameter after a step."""
    twin = nn.Parameter(torch.zeros_like(parameter))
    twin.grad = torch.zeros_like(parameter)
    probe = type(optimizer)([twin], **optimizer.defaults)
    probe.step()
    return dict(probe.state[twin])

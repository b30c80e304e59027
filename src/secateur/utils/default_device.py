"""The default device of the caller's code, which computations here don't depend on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_callers_device: ContextVar[torch.device | None] = ContextVar("_callers_device", default=None)


@contextmanager
def default_device_set_aside() -> Iterator[None]:
    """Make the processor the default device for new tensors, whatever `torch.set_default_device` says."""
    device = torch.get_default_device()
    if device.type == "cpu":
        yield
        return
    token = _callers_device.set(device)
    try:
        with torch.device("cpu"):
            yield
    finally:
        _callers_device.reset(token)


def on_callers_device(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function of the user's, such as a model, that runs with the caller's default device for new tensors.

    Examples:
        >>> def device_of_new_tensors() -> str:
        ...     return torch.zeros(1).device.type
        >>> with torch.device("meta"), default_device_set_aside():
        ...     device_of_new_tensors(), on_callers_device(device_of_new_tensors)()
        ('cpu', 'meta')
    """
    device = _callers_device.get()
    if device is None:
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.device(device):
            return function(*args, **kwargs)

    return call

"""States of models, optimizers and methods, as a new process reads them from a file."""

import io
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """An object with a state."""

    def state_dict(self) -> dict[str, Any]: ...


def saved_states(*objects: Stateful) -> list[dict[str, Any]]:
    """Return the states of objects after they were saved and loaded as plain data."""
    file = io.BytesIO()
    torch.save([item.state_dict() for item in objects], file)
    file.seek(0)
    states: list[dict[str, Any]] = torch.load(file, weights_only=True)
    return states

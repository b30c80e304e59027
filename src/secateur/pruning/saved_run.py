"""The record of what the results of a run depend on, compared with that of a checkpoint and of other processes."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.errors import ProcessError
from secateur.files import Record
from secateur.files.setting_texts import setting_text
from secateur.files.state_memo import key_of
from secateur.importance.checkpoint import tensor_fingerprint
from secateur.utils.distributed import (
    exchange,
    process_rank,
)
from secateur.version import __version__


class SavedRun(Record, frozen=True):
    """The model, the examples and the settings that the results of a run depend on."""

    FORMAT: ClassVar[str] = "secateur checkpoint/1"

    format: str
    secateur: str
    torch: str
    function: str
    model: str
    data: str
    settings: dict[str, str]
    checksum: str = ""

    def differences(self, other_run: "SavedRun") -> list[str]:
        """Return what differs from another run, in words."""
        names = ("secateur", "torch", "function")
        lines = [f"{name} was {getattr(self, name)}, is {getattr(other_run, name)}" for name in names
                 if getattr(self, name) != getattr(other_run, name)]  # fmt: skip
        lines += ["the model or its weights are others"] if self.model != other_run.model else []
        lines += ["the examples are others"] if self.data != other_run.data else []
        for name in sorted(self.settings.keys() | other_run.settings.keys()):
            old_value, now = self.settings.get(name, "not given"), other_run.settings.get(name, "not given")
            lines += [f"{name} was {old_value}, is {now}"] if old_value != now else []
        return lines


def check_same_run(saved_run: SavedRun) -> None:
    """Check that the processes that share a run were given the same.

    Raises:
        ProcessError: another one was given something else.
    """
    for rank, other_run in enumerate(exchange(f"inputs of {saved_run.function}", saved_run)):
        differences = other_run.differences(saved_run)
        if differences:
            raise ProcessError(
                f"process {rank} was given something else than process {process_rank()}: {'; '.join(differences)}; "
                f"call `{saved_run.function}` with the same arguments in every process, or outside of "
                "`shared_processes`"
            )


def describe_run(function: str, model: nn.Module, data: Sequence[Batch], settings: Mapping[str, Any]) -> SavedRun:
    """Return the record of a run.

    Args:
        function: the public function that runs.
        model: the model.
        data: the examples.
        settings: all else that results depend on; those that are None are left out.
    """
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    texts = {name: setting_text(value) for name, value in settings.items() if value is not None}
    return SavedRun(
        SavedRun.FORMAT, __version__, str(torch.__version__), function, key_of(type(model).__qualname__, state),
        tensor_fingerprint([], data), texts,
    )  # fmt: skip

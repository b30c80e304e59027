"""Checkpoints of whole runs: a folder with the scores, simulated plans and repairs of a run, from which it goes on."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.errors import CheckpointError, ProcessError, StorageError
from secateur.files import Record, read_record, record_writer, write_file
from secateur.files.locks import try_lock, unlock
from secateur.files.setting_texts import setting_text
from secateur.files.state_memo import FileMemo, StateMemo, key_of
from secateur.importance.checkpoint import tensor_fingerprint
from secateur.importance.registry import CriterionLike, find_criterion
from secateur.importance.scores import Scores
from secateur.importance.shapley.config import SamplingConfig
from secateur.utils.distributed import exchange, is_shared, process_count, process_rank
from secateur.version import __version__

MANIFEST = "checkpoint.json"
SECONDS = 10.0  # between two writes of simulated plans


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

    def differences(self, other: "SavedRun") -> list[str]:
        """Return what differs from another run, in words."""
        names = ("secateur", "torch", "function")
        lines = [f"{name} was {getattr(self, name)}, is {getattr(other, name)}" for name in names
                 if getattr(self, name) != getattr(other, name)]  # fmt: skip
        lines += ["the model or its weights are others"] if self.model != other.model else []
        lines += ["the examples are others"] if self.data != other.data else []
        for name in sorted(self.settings.keys() | other.settings.keys()):
            before, now = self.settings.get(name, "not given"), other.settings.get(name, "not given")
            lines += [f"{name} was {before}, is {now}"] if before != now else []
        return lines


@dataclass(frozen=True)
class RunCheckpoint:
    """The results of a run so far.

    Args:
        plans: divergences of plans that were tried, plans that were chosen, and trials.
        repairs: repaired weights.
        folder: the folder of the files; None where nothing is kept.
    """

    plans: StateMemo
    repairs: StateMemo
    folder: Path | None = None

    def scores(self, name: str, by: CriterionLike, compute: Callable[..., Scores]) -> Scores:
        """Return scores that the run computed before, or compute and keep them.

        Args:
            name: the name of the file.
            by: the criterion; the samples of one that samples are kept while they are drawn.
            compute: computes the scores; it takes the argument `checkpoint` of `score`.
        """
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return Scores.load(path)
        is_sampled = isinstance(find_criterion(by).config, SamplingConfig)
        scores = compute(checkpoint=self.folder / f"{name}-samples.safetensors") if is_sampled else compute()
        scores.save(path)
        return scores


def recalled_scores(
    saved: RunCheckpoint, by: CriterionLike, score_network: Callable[..., Scores]
) -> Callable[[Network], Scores]:
    """Return a function that scores a network, once for each round, or recalls the scores of the round.

    Args:
        saved: the checkpoint.
        by: the criterion.
        score_network: scores a network; it takes the argument `checkpoint` of `score`.
    """
    numbers = itertools.count(1)
    return lambda network: saved.scores(f"scores-{next(numbers)}", by, partial(score_network, network))


@contextmanager
def run_checkpoint(
    path: str | Path | None, function: str, model: nn.Module, data: Sequence[Batch], settings: Mapping[str, Any]
) -> Iterator[RunCheckpoint]:
    """Open the checkpoint of a run, and save it at the end, also of an interrupted run.

    Args:
        path: the folder; None for no checkpoint.
        function: the public function that runs.
        model: the model.
        data: the examples.
        settings: all else that results depend on.

    Raises:
        CheckpointError: it is of another run, or another process is using it.
        StorageError: it is damaged, or can't be written.
    """
    if is_shared():
        _check_processes(_saved_run(function, model, data, settings))
    if path is None:
        yield RunCheckpoint(StateMemo(), StateMemo())
        return
    if process_count() > 1:
        raise CheckpointError(f"`{function}` keeps a checkpoint in one process alone, and there are {process_count()}")
    folder, saved = Path(path), _saved_run(function, model, data, settings)
    _check_same(folder, saved)
    lock = try_lock(folder / MANIFEST)
    if lock is None:
        raise CheckpointError(f"another process is using the checkpoint {folder}; wait for it, or give another folder")
    try:
        of = key_of(saved.function, saved.model, saved.data, saved.settings)
        plans = FileMemo(folder / "plans.safetensors", of, SECONDS)
        try:
            yield RunCheckpoint(plans, FileMemo(folder / "repairs.safetensors", of), folder)
        finally:
            plans.save()
    except KeyboardInterrupt as stop:
        stop.add_note(f"{folder} holds what was done; {going_on(function, path)}")
        raise
    finally:
        unlock(lock)


def _check_processes(saved: SavedRun) -> None:
    """Check that the processes that share a run were given the same.

    Raises:
        ProcessError: another one was given something else.
    """
    for rank, other in enumerate(exchange(f"inputs of {saved.function}", saved)):
        differences = other.differences(saved)
        if differences:
            raise ProcessError(
                f"process {rank} was given something else than process {process_rank()}: {'; '.join(differences)}; "
                f"call `{saved.function}` with the same arguments in every process, or outside of `shared_processes`"
            )


def going_on(function: str, path: str | Path) -> str:
    """Return the advice on how a run that was stopped goes on."""
    return f"call secateur.{function} again with checkpoint={str(path)!r} and the same settings to go on"


def _check_same(folder: Path, saved: SavedRun) -> None:
    """Check that a checkpoint is of this run; begin one where there is none.

    Raises:
        CheckpointError: it is of another run.
        StorageError: it is damaged, a file, or can't be written.
    """
    if folder.exists() and not folder.is_dir():
        raise StorageError(
            f"checkpoint={str(folder)!r} is a file; give a folder, in which the states of a run are kept"
        )
    manifest = folder / MANIFEST
    if not manifest.exists():
        write_file(manifest, record_writer(saved))
        return
    differences = read_record(manifest, (SavedRun,)).differences(saved)
    if differences:
        raise CheckpointError(
            f"the checkpoint {folder} is of another run: {'; '.join(differences)}; give the settings that it was begun "
            "with, another folder, or remove it"
        )


def _saved_run(function: str, model: nn.Module, data: Sequence[Batch], settings: Mapping[str, Any]) -> SavedRun:
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    texts = {name: setting_text(value) for name, value in settings.items() if value is not None}
    return SavedRun(
        SavedRun.FORMAT, __version__, str(torch.__version__), function, key_of(type(model).__qualname__, state),
        tensor_fingerprint([], data), texts,
    )  # fmt: skip

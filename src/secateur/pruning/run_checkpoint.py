"""Checkpoints of whole runs: a folder with the scores, simulated plans and repairs of a run, from which it goes on."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.errors import CheckpointError, StorageError
from secateur.files import read_record, record_writer, write_file
from secateur.files.locks import try_lock, unlock
from secateur.files.state_memo import FileMemo, StateMemo, key_of
from secateur.importance.registry import CriterionLike, find_criterion
from secateur.importance.scores import Scores
from secateur.importance.shapley.config import SamplingConfig
from secateur.pruning.saved_run import SavedRun, check_same_run, describe_run
from secateur.utils.distributed import (
    broadcast_if_shared,
    exchange,
    failures_exchanged,
    is_shared,
    process_count,
    process_rank,
)

MANIFEST = "checkpoint.json"
SECONDS = 10.0  # between two writes of simulated plans
OPENED, READ = "checkpoint: opened", "checkpoint: read"  # what processes that share a run tell each other


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
        if broadcast_if_shared(path.exists, f"the file of {name}"):
            return Scores.load(path)
        is_sampled = isinstance(find_criterion(by).config, SamplingConfig)
        scores = compute(checkpoint=self.folder / f"{name}-samples.safetensors") if is_sampled else compute()
        if process_rank() == 0:
            scores.save(path)
        return scores


def recalled_scores(
    checkpoint: RunCheckpoint, by: CriterionLike, score_network: Callable[..., Scores]
) -> Callable[[Network], Scores]:
    """Return a function that scores a network, once for each round, or recalls the scores of the round.

    Args:
        checkpoint: the checkpoint.
        by: the criterion.
        score_network: scores a network; it takes the argument `checkpoint` of `score`.
    """
    numbers = itertools.count(1)
    return lambda network: checkpoint.scores(f"scores-{next(numbers)}", by, partial(score_network, network))


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
        check_same_run(describe_run(function, model, data, settings))
    if path is None:
        yield RunCheckpoint(StateMemo(), StateMemo())
        return
    if process_count() > 1 and not is_shared():
        raise CheckpointError(
            f"`{function}` keeps a checkpoint in one process, or in all within `shared_processes`, and there are "
            f"{process_count()}"
        )
    folder, saved_run = Path(path), describe_run(function, model, data, settings)
    lock = _open_checkpoint(folder, saved_run)
    try:
        plans, repairs = _memos(folder, saved_run)
        try:
            yield RunCheckpoint(plans, repairs, folder)
        finally:
            plans.save()
    except KeyboardInterrupt as stop:
        stop.add_note(f"{folder} holds what was done; {going_on(function, path)}")
        raise
    finally:
        if lock is not None:
            unlock(lock)


def _open_checkpoint(folder: Path, saved_run: SavedRun) -> int | None:
    """Check or begin a checkpoint, and lock it; the first of several processes does so, and the others wait for it.

    Returns:
        The lock; None in other processes.

    Raises:
        CheckpointError: it is of another run, or another process is using it.
        StorageError: it is damaged, a file, or can't be written.
    """
    lock = None
    try:
        with failures_exchanged(OPENED) if is_shared() else nullcontext():
            if process_rank() == 0:
                _check_same(folder, saved_run)
                lock = try_lock(folder / MANIFEST)
                if lock is None:
                    raise CheckpointError(
                        f"another process is using the checkpoint {folder}; wait for it, or give another folder"
                    )
        if is_shared():
            exchange(OPENED)
    except BaseException:
        unlock(lock)
        raise
    return lock


def _memos(folder: Path, run: SavedRun) -> tuple[FileMemo, FileMemo]:
    """Return the results of plans and repairs so far; no process goes on before all have read them.

    Raises:
        CheckpointError: another process has other files in a folder of this name.
        StorageError: a file is damaged.
    """
    of, is_written = key_of(run.function, run.model, run.data, run.settings), process_rank() == 0
    with failures_exchanged(READ) if is_shared() else nullcontext():
        plans = FileMemo(folder / "plans.safetensors", of, SECONDS, is_written)
        repairs = FileMemo(folder / "repairs.safetensors", of, 0.0, is_written)
        files = (folder / MANIFEST).exists(), plans.entries, repairs.entries
    if is_shared() and len(set(exchange(READ, files))) > 1:
        raise CheckpointError(
            f"the processes have other files in {folder} each; give a folder on a disk that all of them share"
        )
    return plans, repairs


def going_on(function: str, path: str | Path) -> str:
    """Return the advice on how a run that was stopped goes on."""
    return f"call secateur.{function} again with checkpoint={str(path)!r} and the same settings to go on"


def _check_same(folder: Path, saved_run: SavedRun) -> None:
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
        write_file(manifest, record_writer(saved_run))
        return
    differences = read_record(manifest, (SavedRun,)).differences(saved_run)
    if differences:
        raise CheckpointError(
            f"the checkpoint {folder} is of another run: {'; '.join(differences)}; give the settings that it was begun "
            "with, another folder, or remove it"
        )

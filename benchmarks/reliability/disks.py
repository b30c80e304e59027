"""Saving to a full disk, for which a limit on the size of files stands."""

import collections
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import secateur as sc
from damaged import examples, make
from killed import REFUSED, forked
from secateur.data.conversion import as_batches
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.unification.codec import save_compressed
from secateur.training.loop import TrainingLoop, TrainingSettings

LIMITS = (0, 100, 300)


def full_disk_outcomes(folder: Path) -> dict[str, collections.Counter[str]]:
    """Save each kind of file with too little space, and count the outcomes."""
    result = sc.prune(make(), examples(), {"units": 0.5}, by="l2", repair=None, progress=False)
    blocks = pivot(make(), examples()[:2], 0.5, shape=(2, 2))
    saves: dict[str, Callable[[Path], Any]] = {
        "result": result.save,
        "scores": lambda target: result.scores.save(target / "scores"),
        "blocks of pivoting": blocks.save,
        "compressed network": lambda target: save_compressed(make(), target / "model.blocks", {}),
        "state of a training": _save_training,
    }
    counts_by_save = {}
    for name, save in saves.items():
        counts: collections.Counter[str] = collections.Counter()
        for limit in LIMITS:
            target = folder / f"{name} {limit}"
            target.mkdir()
            status = forked(partial(_save_within, limit, partial(save, target)))
            is_clean = status == REFUSED and not list(target.iterdir())
            counts["refused, nothing left" if is_clean else "refused" if status == REFUSED else "raw exception"] += 1
        counts_by_save[name] = counts
    return counts_by_save


def _save_within(limit: int, save: Callable[[], Any]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    save()


def _save_training(folder: Path) -> None:
    model = make()
    optimizer = torch.optim.Adam(model.parameters())
    TrainingLoop(model, make(), as_batches(examples()), optimizer, TrainingSettings(batch_size=8, folder=folder)).run(
        "stage", 2
    )

"""Writing to a disk that is full, as far as a limit on the size of files can stand for one."""

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


def full_disks(folder: Path) -> dict[str, collections.Counter[str]]:
    """Each kind of save with too little space: an error of ours that leaves no trace, or something else."""
    result = sc.prune(make(), examples(), {"units": 0.5}, by="l2", repair=None, progress=False)
    blocks = pivot(make(), examples()[:2], 0.5, shape=(2, 2))
    saves: dict[str, Callable[[Path], Any]] = {
        "result": result.save,
        "scores": lambda place: result.scores.save(place / "scores"),
        "blocks of pivoting": blocks.save,
        "compressed network": lambda place: save_compressed(make(), place / "model.blocks", {}),
        "state of a training": _train,
    }
    found = {}
    for name, save in saves.items():
        counts: collections.Counter[str] = collections.Counter()
        for limit in LIMITS:
            place = folder / f"{name} {limit}"
            place.mkdir()
            status = forked(partial(_limited, limit, partial(save, place)))
            clean = status == REFUSED and not list(place.iterdir())
            counts["refused, nothing left" if clean else "refused" if status == REFUSED else "raw exception"] += 1
        found[name] = counts
    return found


def _limited(limit: int, save: Callable[[], Any]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    save()


def _train(place: Path) -> None:
    model = make()
    optimizer = torch.optim.Adam(model.parameters())
    TrainingLoop(model, make(), as_batches(examples()), optimizer, TrainingSettings(batch_size=8, folder=place)).run(
        "stage", 2
    )

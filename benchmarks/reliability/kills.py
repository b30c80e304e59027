"""A save that is killed at each of its calls to the file system: which result lies there afterwards."""

import collections
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch

import secateur as sc
from damaged import examples, make
from killed import killed_at

Counts = collections.Counter[str]


def kills(folder: Path, until: float) -> dict[str, Counts]:
    """Kill a save over an older one at every step, by SIGKILL and by SIGTERM."""
    sc.api.Report.to_html = lambda report: f"<p>{report}</p>"  # type: ignore[method-assign] # the same in every save
    results = []
    for name, share in (("old", 0.7), ("new", 0.5)):
        results.append(sc.prune(make(), examples(), {"units": share}, by="l2", repair=None, progress=False))
        results[-1].save(folder / name)
    found = {}
    for how in (signal.SIGKILL, signal.SIGTERM):
        counts: Counts = collections.Counter()
        status, number = -1, 0
        while status < 0 and time.monotonic() < until:
            target = folder / "target"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder / "old", target)
            status = killed_at(number, how, lambda: results[1].save(target))  # noqa: B023 (done at once)
            counts[_left(target, folder, results)] += 1
            results[0].save(target)
            counts["leftovers after the next save"] += len(list(target.glob(".*")))
            number += 1
        found[how.name] = counts
    return found


def _left(target: Path, folder: Path, results: list[sc.Result]) -> str:
    """What loads, and whether all files are of one result."""
    try:
        output = sc.load(make(), target)(examples())
    except sc.SecateurError:
        return "nothing loads"
    loaded = next(n for n, each in enumerate(results) if torch.equal(output, each.model(examples())))
    for path in (folder / ("old", "new")[loaded]).iterdir():
        if not (target / path.name).exists() or _content(target / path.name) != _content(path):
            return "mixed"
    return ("old", "new")[loaded]


def _content(path: Path) -> Any:
    """What a file holds; the fields of a header of tensors come in any order."""
    whole = path.read_bytes()
    if path.suffix != ".safetensors":
        return whole
    length = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:length]), whole[length:]

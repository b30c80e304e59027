"""Saves that are killed at each of their calls to the file system, and the results that can be loaded afterwards."""

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


def kill_outcomes(folder: Path, until: float) -> dict[str, Counts]:
    """Kill a save over an older one at every step, by SIGKILL and by SIGTERM, and count the outcomes."""
    sc.api.Report.to_html = lambda report: f"<p>{report}</p>"  # type: ignore[method-assign] # the same in every save
    results = []
    for name, share in (("old", 0.7), ("new", 0.5)):
        results.append(sc.prune(make(), examples(), {"units": share}, by="l2", repair=None, progress=False))
        results[-1].save(folder / name)
    counts_by_signal = {}
    for sent_signal in (signal.SIGKILL, signal.SIGTERM):
        counts: Counts = collections.Counter()
        status, number = -1, 0
        while status < 0 and time.monotonic() < until:
            target = folder / "target"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder / "old", target)
            status = killed_at(number, sent_signal, lambda: results[1].save(target))  # noqa: B023 (done at once)
            counts[_loaded_result(target, folder, results)] += 1
            results[0].save(target)
            counts["leftovers after the next save"] += len(list(target.glob(".*")))
            number += 1
        counts_by_signal[sent_signal.name] = counts
    return counts_by_signal


def _loaded_result(target: Path, folder: Path, results: list[sc.Result]) -> str:
    """Return the result that loads: "old", "new", "mixed" files, or nothing."""
    try:
        output = sc.load(make(), target)(examples())
    except sc.SecateurError:
        return "nothing loads"
    loaded = next(n for n, result in enumerate(results) if torch.equal(output, result.model(examples())))
    for path in (folder / ("old", "new")[loaded]).iterdir():
        if not (target / path.name).exists() or _file_content(target / path.name) != _file_content(path):
            return "mixed"
    return ("old", "new")[loaded]


def _file_content(path: Path) -> Any:
    """Return the content of a file; the header of tensors is parsed, as its fields have no order."""
    content = path.read_bytes()
    if path.suffix != ".safetensors":
        return content
    length = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:length]), content[length:]

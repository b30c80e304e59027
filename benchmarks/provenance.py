"""The folders of results, and the circumstances that every row of results names."""

import datetime
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from secateur.version import __version__

ROOT = Path(__file__).parents[1]


def results_folder(name: str) -> Path:
    """Return the folder for the results of a benchmark; it is created where it does not exist."""
    folder = ROOT / "benchmarks" / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def provenance() -> dict[str, str | int]:
    """Return version, commit, torch, processor, threads and date.

    The seed is a field of the row itself, where an experiment has one.
    """
    return {
        "version": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@cache
def _commit() -> str:
    """Return the environment variable BENCHMARK_COMMIT; without it the abbreviated commit of the repository.

    A plus sign follows where files differ from the commit. The result is "" outside of a repository.
    """
    if commit := os.environ.get("BENCHMARK_COMMIT"):
        return commit
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return process.stdout.strip()


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

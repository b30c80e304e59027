"""The command line in a process of its own."""

import subprocess
import sys
from pathlib import Path


def words_of(*words: str) -> list[str]:
    """Return the command of a process from the words behind `secateur`."""
    return [sys.executable, "-m", "secateur", *words]


def run_secateur(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder, and wait for its end."""
    return subprocess.run(words_of(*words), cwd=folder, capture_output=True, text=True, timeout=300, check=False)

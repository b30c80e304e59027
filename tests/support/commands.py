"""Python in processes of their own: the command line, scripts, and processes that work together.

The processes are forked from one that has imported torch, the commands and what they import when they run, because the
imports take longer than most commands. `words_of` are for a new interpreter.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from repository import ROOT

IMPORTED = [
    "secateur.cli.main",
    "secateur.cli.checkpoints",
    "secateur.cli.named_models",
    "secateur.public",
    "secateur.sparsity",
    "secateur.report.network_page",
    "torch.export._trace",
    "torch._dynamo",
    "torch._export.passes.replace_set_grad_with_hop_pass",
    "torch._inductor.sizevars",
    "torch.fx.experimental.validator",
    "jinja2",
    "networkx",
    "scipy.interpolate",
    "scipy.optimize",
    "scipy.sparse.csgraph",
    "sympy.tensor.tensor",
    "typer._adapters",
]
"""What commands import, or torch for them, before they have read their options or later."""
LIMIT = 300  # seconds


@dataclass(frozen=True)
class RunningProcess:
    """A process, and the folder with its texts."""

    words: tuple[str, ...]
    process: ForkServerProcess
    texts: Path

    def kill(self) -> None:
        """End the process at once, and wait for its end."""
        self.process.kill()
        self.process.join()

    def completed(self) -> "subprocess.CompletedProcess[str]":
        """Wait for the end of the process."""
        self.process.join(LIMIT)
        code = self.process.exitcode
        if code is None:
            self.kill()
            raise TimeoutError(f"python {' '.join(self.words)} takes more than {LIMIT} s")
        texts = [(self.texts / f"{name}-{self.process.pid}").read_text("utf-8") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(["python", *self.words], code, *texts)


def words_of(*words: str) -> list[str]:
    """Return the command of a new interpreter from the words behind `secateur`."""
    return [sys.executable, "-m", "secateur", *words]


def run_secateur(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder, and wait for its end."""
    return run_python(folder, "-m", "secateur", *words)


def run_python(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a script, or a module behind `-m`, in a folder, and wait for its end."""
    return start_python(folder, *words).completed()


def start_python(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> RunningProcess:
    """Start a script, or a module behind `-m`, in a folder.

    Args:
        folder: the working folder.
        words: the words behind `python`.
        environment: further variables of the process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    texts = folder.parent / f"{folder.name}-texts"
    texts.mkdir(exist_ok=True)
    variables = {**os.environ, **(environment or {})}
    process = context.Process(target=_run_words, args=(folder, words, texts, variables))
    process.start()
    return RunningProcess(words, process, texts)


def run_two_ranks(folder: Path, *words: str) -> "list[subprocess.CompletedProcess[str]]":
    """Run a script or a module in two processes, with the variables that torchrun gives them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        start_python(folder, *words, environment={**group, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    return [rank.completed() for rank in ranks]


def wait_for_file(folder: Path, pattern: str) -> None:
    """Wait until a folder has a file whose name matches a pattern, at most for the limit."""
    until = time.monotonic() + LIMIT
    while not list(folder.glob(pattern)) and time.monotonic() < until:
        time.sleep(0.02)


def _run_words(folder: Path, words: tuple[str, ...], texts: Path, variables: dict[str, str]) -> None:
    """Do what `python` does with these words in a new interpreter."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(texts / f"{name}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if not Path(path).is_relative_to(ROOT / "tests"))]
    torch.set_num_threads(1)
    if words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")

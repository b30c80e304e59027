"""The command line: every module of commands registers its own."""

import os
import sys
from io import TextIOWrapper

from secateur.cli import networks, pruning, sparsity, tradeoff, training
from secateur.cli.app import app
from secateur.cli.thread_waiting import limit_active_waiting

__all__ = ["app", "main", "networks", "pruning", "sparsity", "tradeoff", "training"]


def main() -> None:
    """Run the command line.

    Characters that the terminal's encoding lacks are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    limit_active_waiting(os.environ)
    app()

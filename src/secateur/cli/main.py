"""The command line: every module of commands registers its own."""

import os

from secateur.cli import networks, pruning, sparsity, tradeoff, training
from secateur.cli.app import app
from secateur.cli.thread_waiting import limit_active_waiting

__all__ = ["app", "main", "networks", "pruning", "sparsity", "tradeoff", "training"]


def main() -> None:
    """Run the command line."""
    limit_active_waiting(os.environ)
    app()

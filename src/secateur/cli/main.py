"""The command line: every module of commands registers its own."""

from secateur.cli import networks, pruning, sparsity, tradeoff, training
from secateur.cli.app import app

__all__ = ["app", "main", "networks", "pruning", "sparsity", "tradeoff", "training"]


def main() -> None:
    """Run the command line."""
    app()

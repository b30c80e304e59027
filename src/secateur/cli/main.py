"""The command line: every module of commands registers its own."""

from secateur.cli import networks, pruning, sparsity
from secateur.cli.app import app

__all__ = ["app", "main", "networks", "pruning", "sparsity"]


def main() -> None:
    """Run the command line."""
    app()

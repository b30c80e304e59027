"""Secateur makes trained neural networks smaller by cutting whole units, and makes up for what went.

The public names are loaded on first use, and torch with them. The command line can therefore answer a misspelt option
without importing torch.
"""

from importlib import import_module
from importlib.util import find_spec
from sys import modules
from typing import TYPE_CHECKING

from secateur.version import __version__

if TYPE_CHECKING:
    from secateur.public import (
        Network,
        Plan,
        Result,
        Scores,
        SecateurError,
        SecateurWarning,
        Shapley,
        Taylor,
        compare,
        criteria,
        criterion,
        cut,
        export,
        language_report,
        load,
        plan,
        prune,
        reachable,
        register_rule,
        repair,
        save,
        score,
        shared_processes,
        text_batches,
        trace,
        tradeoff,
    )

__all__ = [
    "Network",
    "Plan",
    "Result",
    "Scores",
    "SecateurError",
    "SecateurWarning",
    "Shapley",
    "Taylor",
    "__version__",
    "compare",
    "criteria",
    "criterion",
    "cut",
    "export",
    "language_report",
    "load",
    "plan",
    "prune",
    "reachable",
    "register_rule",
    "repair",
    "save",
    "score",
    "shared_processes",
    "text_batches",
    "trace",
    "tradeoff",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name, or a module of the package, on its first use."""
        if name not in __all__ and (name.startswith("_") or find_spec(f"secateur.{name}") is None):
            raise AttributeError(f"module 'secateur' has no attribute {name!r}", name=name, obj=modules[__name__])
        public = import_module("secateur.public")  # also loads the modules below, as one import of all would
        globals()[name] = getattr(public, name) if name in __all__ else import_module(f"secateur.{name}")
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

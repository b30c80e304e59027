"""Secateur makes trained neural networks smaller by cutting whole units, and makes up for what went.

The public names are loaded on first use, and torch with them. The command line can therefore answer a misspelt option
without importing torch.
"""

from importlib import import_module
from importlib.util import find_spec
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
    "text_batches",
    "trace",
    "tradeoff",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name, or a module of the package, on its first use."""
        if name in __all__:
            value = getattr(import_module("secateur.public"), name)
        elif not name.startswith("_") and find_spec(f"secateur.{name}"):
            value = import_module(f"secateur.{name}")
        else:
            raise AttributeError(f"module 'secateur' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

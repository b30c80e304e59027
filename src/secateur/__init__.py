"""Secateur makes trained neural networks smaller by cutting whole units, and makes up for what went."""

from secateur.api import Result, prune, trace
from secateur.budget.plan import Plan, plan, reachable
from secateur.comparing import compare
from secateur.errors import SecateurError
from secateur.importance.registry import criteria, criterion
from secateur.importance.score import score
from secateur.importance.scores import Scores
from secateur.network.units import Network
from secateur.recovery.repair import repair
from secateur.storage import load, save
from secateur.surgery.cut import cut
from secateur.version import __version__

__all__ = [
    "Network",
    "Plan",
    "Result",
    "Scores",
    "SecateurError",
    "__version__",
    "compare",
    "criteria",
    "criterion",
    "cut",
    "load",
    "plan",
    "prune",
    "reachable",
    "repair",
    "save",
    "score",
    "trace",
]

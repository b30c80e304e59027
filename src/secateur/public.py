"""The public functions and classes, each imported from where it is defined; `secateur` loads them on first use.

This is the list of public names. `secateur` repeats it for type checkers and for `dir`, without an import of torch, and
docs/reference/ has a section for each name; tests compare all of them with this list.
"""

from secateur.allocation.plan import plan
from secateur.allocation.reachable import reachable
from secateur.comparison.compare import compare
from secateur.coupling.network import Network
from secateur.coupling.plan import Plan
from secateur.coupling.rules.registration import register_rule
from secateur.data.text import text_batches
from secateur.deployment.export import export
from secateur.errors import SecateurError, SecateurWarning
from secateur.importance.registry import criteria, criterion
from secateur.importance.score import score
from secateur.importance.scores import Scores
from secateur.importance.shapley.config import Shapley
from secateur.importance.taylor import Taylor
from secateur.pruning.prune import prune
from secateur.pruning.results import Result
from secateur.recovery.repair import repair
from secateur.report.language_report import language_report
from secateur.surgery.cut import cut
from secateur.surgery.storage import load, save
from secateur.tracing import trace
from secateur.tradeoff_curve.run import tradeoff
from secateur.utils.process_groups import shared_processes

__all__ = [
    "Network",
    "Plan",
    "Result",
    "Scores",
    "SecateurError",
    "SecateurWarning",
    "Shapley",
    "Taylor",
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

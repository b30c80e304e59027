"""Score: criteria of units, their configurations, and what a criterion of one's own is made of.

Examples:
    >>> import secateur as sc
    >>> from secateur.importance import Banzhaf
    >>> sc.criteria()["banzhaf"].config == Banzhaf(probability=0.5)
    True
"""

from secateur.importance.activation import over_activations
from secateur.importance.config import CriterionConfig, option_field
from secateur.importance.context import CriterionContext
from secateur.importance.gradient import over_gradients
from secateur.importance.integrated_gradients import IntegratedGradients
from secateur.importance.leave_one_out import Greedy, LeaveOneOut
from secateur.importance.obs import OptimalBrainSurgeon
from secateur.importance.shapley.config import Banzhaf, ExpectedGradients, Owen, Shapley
from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler
from secateur.importance.taylor import Taylor

__all__ = [
    "Banzhaf",
    "CoalitionDesign",
    "CriterionConfig",
    "CriterionContext",
    "ExpectedGradients",
    "Greedy",
    "IntegratedGradients",
    "LeaveOneOut",
    "OptimalBrainSurgeon",
    "Owen",
    "Sampler",
    "Shapley",
    "Taylor",
    "option_field",
    "over_activations",
    "over_gradients",
]

"""Estimators by name."""

from secateur.errors import NameMatchError
from secateur.importance.shapley.estimators.adjusted import adjusted
from secateur.importance.shapley.estimators.banzhaf import banzhaf
from secateur.importance.shapley.estimators.design import Estimator
from secateur.importance.shapley.estimators.exact import exact
from secateur.importance.shapley.estimators.kernelshap import kernelshap
from secateur.importance.shapley.estimators.leverage import leverage
from secateur.importance.shapley.estimators.orthogonal import orthogonal
from secateur.importance.shapley.estimators.permutation import antithetic, permutation
from secateur.importance.shapley.estimators.svarm import svarm

ESTIMATORS: dict[str, Estimator] = {
    "exact": exact,
    "permutation": permutation,
    "antithetic": antithetic,
    "orthogonal": orthogonal,
    "leverage": leverage,
    "kernelshap": kernelshap,
    "adjusted": adjusted,
    "svarm": svarm,
    "banzhaf": banzhaf,
}


def find_estimator(name: str) -> Estimator:
    """An estimator by name.

    Raises:
        NameMatchError: no estimator has that name.
    """
    if name not in ESTIMATORS:
        raise NameMatchError(f"no estimator is named {name!r}; known are auto, {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]

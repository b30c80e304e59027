"""Samplers by name."""

from secateur.importance.shapley.samplers.adjusted import adjusted
from secateur.importance.shapley.samplers.banzhaf import banzhaf
from secateur.importance.shapley.samplers.base import Sampler
from secateur.importance.shapley.samplers.exact import exact
from secateur.importance.shapley.samplers.kernelshap import kernelshap
from secateur.importance.shapley.samplers.leverage import leverage
from secateur.importance.shapley.samplers.orthogonal import orthogonal
from secateur.importance.shapley.samplers.permutation import antithetic, permutation
from secateur.importance.shapley.samplers.svarm import svarm

SAMPLERS: dict[str, Sampler] = {
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

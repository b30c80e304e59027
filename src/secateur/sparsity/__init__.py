"""Sparsity below the unit: kernels, columns, dense blocks, and blocks of one absolute value."""

from secateur.sparsity.fast import load_fast
from secateur.sparsity.lean import lean
from secateur.sparsity.packed_layers.gathered_conv import gathered
from secateur.sparsity.packed_layers.unified_kernels import unified_fast_network
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.result import load_pivoted
from secateur.sparsity.spp.spp import SPP
from secateur.sparsity.spp.train import spp
from secateur.sparsity.unification.codec import load_compressed, save_compressed
from secateur.sparsity.unification.train import unify
from secateur.sparsity.unification.unification import Unification

__all__ = [
    "SPP",
    "Unification",
    "gathered",
    "lean",
    "load_compressed",
    "load_fast",
    "load_pivoted",
    "pivot",
    "save_compressed",
    "spp",
    "unified_fast_network",
    "unify",
]

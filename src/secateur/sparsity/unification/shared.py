"""Former module of `shared`, which is now `secateur.sparsity.unified_fast_network`."""

from typing import Any

from secateur.sparsity.packed_layers.unified_kernels import unified_fast_network as _unified_fast_network
from secateur.utils.deprecation import deprecated_attribute


def __getattr__(name: str) -> Any:
    renamed = {"shared": ("secateur.sparsity.unified_fast_network", _unified_fast_network)}
    return deprecated_attribute(__name__, name, renamed)

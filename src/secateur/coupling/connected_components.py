"""Connected components of pairs of labels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray


def find_components(couplings: Sequence[Tensor], size: int) -> Array:
    """Return the component of every label from 0 to size, given pairs of them, (2, pairs) each, (size,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not couplings:
        return np.arange(size)
    pairs = torch.cat(list(couplings), 1).numpy()
    graph = coo_matrix((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(size, size))
    component: Array = connected_components(graph, directed=False)[1]
    return component

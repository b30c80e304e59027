"""Random generators derived from a seed and a purpose."""

import zlib

import numpy as np
import torch


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a generator that depends only on the seed and the purpose."""
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in purpose]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))

"""Random numbers that depend on nothing but a seed and what they are for."""

import zlib

import numpy as np
import torch


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator of its own for each (seed, purpose)."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in purpose]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))

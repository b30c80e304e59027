"""Networks and batches of several sizes."""

import torch
from torch import Tensor


def sized_images(*sizes: int, seed: int = 0, examples: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Labelled batches of images of these sizes."""
    draws = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(examples, 3, size, size, generator=draws), torch.randint(0, 4, (examples,), generator=draws))
        for size in sizes
    ]

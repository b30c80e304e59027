"""The global random states of torch, numpy and Python."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the global random generators of torch, numpy and Python on leaving.

    Examples:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> with random_states_kept():
        ...     first = torch.rand(())
        >>> bool(first == torch.rand(()))
        True
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)

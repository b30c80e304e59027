"""The whole way in one call: trace, score, plan, cut."""

from typing import Any

import torch
from torch import nn

from secateur.data import device_of, example_batch
from secateur.errors import TraceError
from secateur.network.program import export_program
from secateur.network.trace import trace_groups
from secateur.network.units import Network
from secateur.surgery.trial import settle


def trace(model: nn.Module, example_inputs: Any) -> Network:
    """Find out what can be cut in a model.

    The model is exported once, its units are found by label tracing, and a copy loses some of every group for trial;
    what can't be cut for real is frozen, and `print(network)` says why.

    Args:
        model: any module that `torch.export` can export.
        example_inputs: its input, a tuple of its inputs, a dict of them, or batches of data; one or two examples are
            enough.

    Returns:
        The network: its groups of units, what they own, what they cost, and what is frozen.

    Raises:
        TraceError: the model can't be exported.
        DataError: the model refuses the example.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> [(group.name, group.size) for group in network.groups]
        [('0', 8)]
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"model is a {type(model).__name__}, not a torch.nn.Module; wrap the function in a module")
    with torch.random.fork_rng(devices=[]):
        example = example_batch(example_inputs, device_of(model))
        program = export_program(model, example)
        return settle(model, trace_groups(model, example, program))

"""Traces of copies of the zoo's networks, from the trace that all tests of a network share."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import secateur as sc
from random_plans import traced_without_options
from secateur import tracing
from secateur.coupling.kinds import wanted_kinds
from secateur.coupling.other_sizes import with_other_sizes
from secateur.graph.parametrizations import needs_folding
from secateur.surgery.verify import compare_outputs


@contextmanager
def copies_traced_once(name: str) -> Iterator[None]:
    """Give copies of a network of the zoo its trace, with their own parameters, in place of an export for each.

    Models with other values and other options are traced as always.
    """
    model, _, network = traced_without_options(name)
    trace_anew = tracing._trace
    usual = (wanted_kinds(None, False), False, True)

    def trace_copy(traced_model: nn.Module, example_inputs: Any, *options: Any) -> sc.Network:
        is_copy = options == usual and not network.module_programs and not needs_folding(model)
        if is_copy and _have_same_values(model, traced_model):
            return _network_of_copy(network, traced_model)
        return trace_anew(traced_model, example_inputs, *options)

    with patch.object(tracing, "_trace", trace_copy):
        yield


def _have_same_values(model: nn.Module, other: nn.Module) -> bool:
    ours, theirs = _tensors(model), _tensors(other)
    are_alike = type(other) is type(model) and ours.keys() == theirs.keys()
    return are_alike and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _network_of_copy(network: sc.Network, copied_model: nn.Module) -> sc.Network:
    """Return a network whose program reads a copy's parameters and buffers."""
    tensors, names = _tensors(copied_model), network.program.names
    exported = copy.copy(network.program.exported)
    for holder in ("_state_dict", "_constants"):
        setattr(
            exported, holder, {key: tensors.get(names.get(key), value) for key, value in vars(exported)[holder].items()}
        )
    program = replace(network.program, exported=exported, other_sizes=None)
    program = with_other_sizes(program, copied_model, network.example, compare_outputs)
    return replace(network, program=program)

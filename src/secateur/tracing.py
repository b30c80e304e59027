"""Trace a model: its program, its groups of units, and what its own code can bear."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import fx, nn

from secateur.allocation.budget import TIMES
from secateur.coupling.kinds import BLOCKS, BY_WIDTH, USUAL, wanted_kinds
from secateur.coupling.network import Network
from secateur.coupling.new_biases import without_new_biases
from secateur.coupling.other_sizes import with_other_sizes
from secateur.coupling.regroup import freeze_groups
from secateur.coupling.removable_blocks import find_blocks
from secateur.coupling.residual_blocks import with_blocks
from secateur.coupling.trace_groups import trace_groups
from secateur.data.conversion import example_batches
from secateur.data.model_inputs import device_of, floating_type
from secateur.entry import entry_point
from secateur.errors import TraceError
from secateur.graph.example_axis import is_one_example
from secateur.graph.export import export_first, export_fresh
from secateur.graph.parametrizations import bake_parametrizations
from secateur.graph.supported_models import unsupported_reason
from secateur.importance.data_checks import check_model_values, usable_examples
from secateur.surgery.program_surgery import as_module
from secateur.surgery.validate import removable_blocks, validate_blocks, validate_groups
from secateur.surgery.verify import check_same, compare_outputs


@entry_point
def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    kinds: str | Sequence[str] | None = None,
    as_program: bool = False,
    new_biases: bool = True,
) -> Network:
    """Find out what can be cut in a model.

    The model is exported once, its units are found by label tracing, and a copy loses some of every group for trial;
    what can't be cut for real is frozen, and `print(network)` says why.

    Args:
        model: any module that `torch.export` can export.
        example_inputs: its input, a tuple of its inputs, a dict of them, or batches of data; one or two examples are
            enough.
        kinds: which units may be cut: "channels" of convolutions, "neurons" of linear layers, "residual" for the width
            of residual streams, "heads" of attention, "experts" of a mixture; all of these by default. In place of
            heads "head width", the same places of all heads. "blocks", by itself or beside others: the blocks of a
            residual network, of which the skip alone remains.
        as_program: cut the exported program in place of the model's own code, which may not be able to say the cut
            shape: more can be cut, and what comes back is a module that runs the cut program, not the model's class.
        new_biases: whether layers without a bias may get one for the means of removed units. `plan.new_biases` names
            them; code that does not expect them drops them (converters, formats made from a configuration). Layers
            that a class other than torch's own wraps (adapters) never get one.

    Returns:
        The network: its groups of units, what they own, what they cost, and what is frozen.

    Raises:
        TraceError: the model can't be exported, or is of a kind whose parameters can't be cut: lazy modules that saw no
            data, TorchScript, quantized, offloaded.
        DataError: the model refuses the example.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> [(group.name, group.size) for group in network.groups]
        [('0', 8)]
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise TraceError(reason)
    wanted = wanted_kinds(kinds, as_program)
    check_model_values(model)
    plain = bake_parametrizations(model)
    examples = usable_examples(model, example_batches(example_inputs, device_of(model), floating_type(model)))
    if plain is not model:
        check_same(model, plain, examples[-1])
    program, example = export_first(plain, examples)
    if is_one_example(program, example):
        example = replace(examples[-1], is_one_example=True)
        program = export_fresh(plain, example)
    program = with_other_sizes(program, plain, example, compare_outputs)
    if not as_program and not isinstance(model, fx.GraphModule):
        network = trace_groups(plain, example, program, BY_WIDTH in wanted)
        return _settled(plain, network if new_biases else without_new_biases(network), wanted)
    module = as_module(program)
    network = trace_groups(module, example, program, BY_WIDTH in wanted)
    return _settled(module, replace(network, as_program=True, title=type(model).__name__), wanted)


def _kinds_for(
    keep: Mapping[str, float | str], kinds: str | Sequence[str] | None, is_program: bool
) -> str | Sequence[str] | None:
    """The kinds that were asked for; by default blocks beside the usual ones where the budget is in time."""
    return (*USUAL, BLOCKS) if kinds is None and set(keep) & set(TIMES) and not is_program else kinds


def _settled(model: nn.Module, network: Network, wanted: frozenset[str]) -> Network:
    if BLOCKS in wanted and (network.as_program or len(wanted) == 1):
        return validate_blocks(model, network, list(find_blocks(network.program)))
    others = [group for group in network.groups if group.kind not in wanted]
    settled = validate_groups(
        model, freeze_groups(network, {group.name: f"{group.kind} were not asked for" for group in others})
    )
    return with_blocks(settled, removable_blocks(model, network)) if BLOCKS in wanted else settled

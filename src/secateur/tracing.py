"""`trace`: the units of a model that can be removed, found by label tracing and by trial cuts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx, nn

from secateur.allocation.budget import TIMES
from secateur.coupling.block_selection import with_selected_blocks
from secateur.coupling.kinds import BLOCKS, BY_WIDTH, USUAL, wanted_kinds
from secateur.coupling.network import Network
from secateur.coupling.new_biases import without_new_biases
from secateur.coupling.other_sizes import with_other_sizes
from secateur.coupling.regroup import freeze_groups
from secateur.coupling.removable_blocks import find_blocks
from secateur.coupling.residual_blocks import with_blocks
from secateur.coupling.trace_groups import trace_groups
from secateur.data.batch import Batch
from secateur.data.conversion import example_batches
from secateur.data.model_inputs import device_of, floating_type, with_accepted_names
from secateur.entry import entry_point
from secateur.errors import TraceError
from secateur.graph.example_axis import is_one_example
from secateur.graph.export import export_first, export_fresh
from secateur.graph.parametrizations import bake_parametrizations
from secateur.graph.supported_models import unsupported_reason
from secateur.importance.data_checks import check_model_values, usable_examples
from secateur.options.selections import Selection
from secateur.surgery.adapters import warn_of_idle_adapters
from secateur.surgery.config_layout_network import with_config_layout, with_shorter_lists
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
    """Find the units of a model that can be removed.

    The model is exported once, its units are found by label tracing, and some units of every group are removed from a
    copy on trial; groups that can't be cut are frozen, and `print(network)` gives the reasons.

    Args:
        model: any module that `torch.export` can export.
        example_inputs: its input, a tuple of its inputs, a dict of them, or batches of data; one or two examples are
            enough.
        kinds: the units that may be removed: "channels" of convolutions, "neurons" of linear layers, "residual" for the
            width of residual streams, "heads" of attention, "experts" of a mixture; all of these by default. In place
            of heads "head width", the same places of all heads. "blocks", by itself or beside others: the blocks of a
            residual network, of which the skip alone remains.
        as_program: cut the exported program in place of the model's own code, which may not be able to express the cut
            shape: more can be cut, and the result is a module that runs the cut program, not the model's class.
        new_biases: whether layers without a bias may get one for the means of removed units. `plan.new_biases` names
            them; code that does not expect them drops them (converters, formats made from a configuration). Layers
            that a class other than torch's own wraps (adapters) never get one.

    Returns:
        The network: its groups of units, their entries in the parameters, their costs, and what is frozen.

    Raises:
        TraceError: the model can't be exported, or is of a kind whose parameters can't be cut: lazy modules without
            data, TorchScript, quantized, offloaded.
        DataError: the model rejects the example.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> [(group.name, group.size) for group in network.groups]
        [('0', 8)]
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise TraceError(reason)
    network = _trace(model, example_inputs, wanted_kinds(kinds, as_program), as_program, new_biases)
    if not network.as_program:
        warn_of_idle_adapters(model, network)
    return replace(network, modules=dict(model.named_modules(remove_duplicate=False)))


def _trace(
    model: nn.Module, example_inputs: Any, selected_kinds: frozenset[str], as_program: bool, new_biases: bool
) -> Network:
    """Trace a model of a kind that is supported, as `trace` does."""
    check_model_values(model)
    dense = bake_parametrizations(model)
    examples = example_batches(example_inputs, device_of(model), floating_type(model), model)
    examples = usable_examples(model, with_accepted_names(model, examples))
    if dense is not model:
        check_same(model, dense, examples[-1])
    program, example = export_first(dense, examples)
    if is_one_example(program, example):
        example = replace(examples[-1], is_one_example=True)
        program = export_fresh(dense, example)
    program = with_other_sizes(program, dense, example, compare_outputs)
    if not as_program and not isinstance(model, fx.GraphModule):
        network = trace_groups(dense, example, program, BY_WIDTH in selected_kinds)
        return _with_trials(dense, network if new_biases else without_new_biases(network), selected_kinds)
    module = as_module(program)
    network = trace_groups(module, example, program, BY_WIDTH in selected_kinds)
    return _with_trials(module, replace(network, as_program=True, title=type(model).__name__), selected_kinds)


def within_layout(trace_model: Callable[[nn.Module], Network], layout: str | None) -> Callable[[nn.Module], Network]:
    """Return a function that traces a model, and freezes the units that its configuration can't say fewer of.

    Args:
        trace_model: traces a model.
        layout: "config", or None: nothing is frozen.
    """

    def trace_configured(model: nn.Module) -> Network:
        network = trace_model(model)
        return network if layout is None else with_config_layout(bake_parametrizations(model), network)

    return trace_configured


def trace_in_layout(
    model: nn.Module, batches: Sequence[Batch], kinds: str | Sequence[str] | None, new_biases: bool, layout: str | None
) -> Network:
    """Trace a model, and freeze the units that its configuration can't say fewer of where the layout goes by it."""
    return within_layout(partial(trace, example_inputs=batches, kinds=kinds, new_biases=new_biases), layout)(model)


def within_selection(
    trace_model: Callable[[nn.Module], Network], only: Selection | None, skip: Selection | None
) -> Callable[[nn.Module], Network]:
    """Return a function that traces a model, and keeps the blocks that a selection of layers does not allow to remove.

    Args:
        trace_model: traces a model.
        only: as `score` takes it.
        skip: as `score` takes it.
    """
    return lambda model: with_selected_blocks(trace_model(model), only, skip)


def kinds_for_budget(
    keep: Mapping[str, float | str], kinds: str | Sequence[str] | None, is_program: bool, is_convolutional: bool
) -> str | Sequence[str] | None:
    """Return the kinds that the user gave; by default blocks beside the usual ones where they save time.

    They do where the budget is in time, or in the MACs of a convolutional network: narrow convolutions take nearly as
    long as those that fill a kernel, and a block that is removed takes none.

    Args:
        keep: the budget.
        kinds: as `trace` takes them.
        is_program: whether a program is cut.
        is_convolutional: whether plans are simulated of a network whose layers are mostly convolutions.
    """
    has_blocks = set(keep) & set(TIMES) or ("macs" in keep and is_convolutional)
    return (*USUAL, BLOCKS) if kinds is None and has_blocks and not is_program else kinds


def is_convolutional(model: nn.Module) -> bool:
    """Return whether more of a model's layers are convolutions than linear layers.

    Examples:
        >>> is_convolutional(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2)))
        True
    """
    layers = list(model.modules())
    convolutions = sum(isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for layer in layers)
    return convolutions > sum(isinstance(layer, nn.Linear) for layer in layers)


def _with_trials(model: nn.Module, network: Network, kinds: frozenset[str]) -> Network:
    """Return the network with what can't be cut frozen, by trial cuts."""
    if BLOCKS in kinds and (network.as_program or len(kinds) == 1):
        blocks_alone = validate_blocks(model, network, list(find_blocks(network.program)))
        return blocks_alone if network.as_program else with_shorter_lists(model, blocks_alone)
    other_groups = [group for group in network.groups if group.kind not in kinds]
    validated_network = validate_groups(
        model, freeze_groups(network, {group.name: f"{group.kind} were not asked for" for group in other_groups})
    )
    if BLOCKS not in kinds:
        return validated_network
    return with_shorter_lists(model, with_blocks(validated_network, removable_blocks(model, network)))

"""Checks of the settings of `prune`, before any work is done."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import Tensor, nn

from secateur.allocation.budget import has_time, timed_phase
from secateur.allocation.config import DEFAULTS, PruneConfig, check_allocation
from secateur.allocation.reachable import check_reachable
from secateur.coupling.block_selection import SelectedNetwork
from secateur.coupling.group_sizes import Sizes, requested_sizes
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget
from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import device_of
from secateur.errors import BudgetError, OptionError, TraceError
from secateur.evaluation.channel_steps import channel_step
from secateur.evaluation.generation import check_generation
from secateur.evaluation.runtimes import EAGER, check_runtime, runtime_of
from secateur.importance.context import as_examples
from secateur.importance.data_checks import check_program_sizes
from secateur.importance.score import check_scoring
from secateur.importance.scores import Scores
from secateur.pruning.rounds import check_rounds
from secateur.recovery.repair_table import check_options, resolve_repairs
from secateur.surgery.model_config import config_of


def check_settings(
    config: PruneConfig, keep: Budget, options: Mapping[str, Any], tuning: Mapping[str, Any], scores: Scores | None
) -> None:
    """Check the settings before any work is done.

    Raises:
        SecateurError: one of them can't be used.
    """
    if scores is None:
        check_scoring(config.by, options)
    else:
        _check_no_scoring(config, options, scores)
    if config.repair is not None:
        resolve_repairs(config.repair)
        check_options(tuning)
    check_allocation(config.allocation)
    check_rounds(config.rounds, keep)


def _check_no_scoring(config: PruneConfig, options: Mapping[str, Any], scores: Scores) -> None:
    """Check that nothing about scoring is asked for where there are scores.

    Raises:
        OptionError: a setting has no effect on scores that exist.
    """
    settings = {name: getattr(config, name) for name in ("by", "ablation", "rounds")}
    changed_names = [name for name, value in settings.items() if value != getattr(DEFAULTS, name)]
    names = [*(name for name in changed_names if (name, settings[name]) != ("by", scores.by)), *options]
    if names:
        raise OptionError(
            f"{', '.join(names)} would change how the network is scored, but scores= are given, by {scores.by!r}; "
            "leave one of them out"
        )


def check_device(model: nn.Module, config: PruneConfig, keep: Budget) -> None:
    """Check the device that the small network is for.

    Raises:
        NameMatchError: it is unknown.
        OptionError: its runtime, in which times are to be measured, is not installed.
    """
    channel_step(config.target, device_of(model))
    if has_time(keep):
        check_runtime(runtime_of(config.target))


def check_phase(
    model: nn.Module, batches: Sequence[Batch], config: PruneConfig, keep: Budget, as_program: bool = False
) -> None:
    """Check that a budget in the time of text generation can be measured, by one run of the dense model.

    Raises:
        BudgetError: the model generates no text from tokens, can't take as many, or is timed as a program.
    """
    name = timed_phase(keep)
    if name is None:
        return
    if as_program or runtime_of(config.target) != EAGER:
        raise BudgetError(
            f"keep={{'{name}': ...}} is timed with the model's own code and cache: leave as_program=True and "
            "target='onnxruntime' out, or give latency, the time of a batch"
        )
    check_generation(name, model, on_device(batches[0], device_of(model)), config.context_length)


def check_layout(model: nn.Module, layout: str | None, as_program: bool) -> None:
    """Check that a model has a configuration where the layout goes by it.

    Raises:
        OptionError: it has none, or its program is to be cut.
    """
    if layout is None:
        return
    config_of(model)
    if as_program:
        raise OptionError("layout='config' can't be combined with as_program=True: a program has no configuration")


def check_network(
    selected_network: SelectedNetwork,
    batches: Sequence[Batch],
    budgets: Sequence[Budget],
    config: PruneConfig,
) -> None:
    """Check that the network can be cut within every budget, and takes the examples.

    Args:
        selected_network: the traced network, and the groups that may be cut.
        batches: the examples.
        budgets: the budgets.
        config: the settings, of which the sizes that groups may have count here.

    Raises:
        TraceError: nothing in it can be cut.
        BudgetError: a budget can't be met.
        DataError: a batch has sizes that the network does not take.
    """
    network = selected_network.network
    check_program_sizes(network, as_examples(network, batches))
    if not network.groups:
        raise TraceError(f"nothing in this network can be cut\n{network}")
    groups = selected_network.groups
    _check_sizes(network, {group.name for group in groups}, config.sizes)
    for budget in budgets:
        check_reachable(network, groups, budget, config.multiple, config.floor, config.sizes)


def _check_sizes(network: Network, selected_names: Set[str], sizes: Sizes | None) -> None:
    """Check that sizes are given only for groups that are scored.

    Raises:
        SecateurError: a size is given for a group that `only` or `skip` leaves out, or one that it can't have.
    """
    for name, request in requested_sizes(network, sizes or {}).items():
        if name not in selected_names and not isinstance(request, Tensor) and request < network[name].size:
            raise OptionError(f"sizes= asks for {request} units of {name}, which only= or skip= leaves whole")

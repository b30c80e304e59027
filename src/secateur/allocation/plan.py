"""`plan`: the sizes of the groups and the units that are kept, for a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from secateur.allocation.budget import check_metric_bound, has_time, parse_budget, timed_phase
from secateur.allocation.choose_plan import choose_plan
from secateur.allocation.config import DEFAULTS, WITHOUT_DATA, PruneConfig, check_allocation
from secateur.allocation.examples import checked_calibration
from secateur.allocation.loss_curves import Curves
from secateur.allocation.plan_without_data import plan_without_data
from secateur.allocation.score_checks import check_scores, warn_of_other_weights
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget, Plan
from secateur.entry import entry_point_with
from secateur.errors import BudgetError, OptionError
from secateur.evaluation.channel_steps import channel_step
from secateur.evaluation.latency_table import LatencyTable
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric
from secateur.evaluation.runtimes import check_runtime, runtime_of
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.scores import Scores
from secateur.recovery.repair_table import How, resolve_repairs
from secateur.surgery.config_layout_network import with_config_layout
from secateur.utils.time_budget import TimeBudget


@entry_point_with(is_shared=True)
def plan(
    network: Network,
    scores: Scores,
    keep: Mapping[str, float | str] | None = None,
    *,
    sizes: Sizes | None = None,
    data: Any = None,
    model: nn.Module | None = None,
    allocation: str | Sequence[str] | None = None,
    curves: Curves | None = None,
    latency: LatencyTable | None = None,
    round_to: int | None = None,
    floor: float = DEFAULTS.floor,
    target: str | None = None,
    dropped: str | Sequence[str] = (),
    loss: Loss | None = None,
    metric: Metric | None = None,
    repair: How | None = DEFAULTS.repair,
    layout: str | None = DEFAULTS.layout,
    context_length: int | None = DEFAULTS.context_length,
    seconds: float | None = None,
    progress: bool | None = True,
) -> Plan:
    """Choose the units that are kept, so that the budget is met within one unit.

    Units are removed one after another, in an order that `allocation` makes of the scores, until every budget is met;
    those of one group always in the order of their scores. With examples, plans by several allocations are tried on
    them without cutting, as `prune` does, and the one that comes nearest to the dense network is returned.

    Args:
        network: the traced network.
        scores: the scores of its units; groups without scores stay whole.
        keep: the budget: `{"macs": 0.5}`, "params", "bytes" or "units", as a fraction of the dense network or as an
            absolute number, `{"params": "2M"}`; with `data` or `latency` a time, `{"latency": 0.5}`, `{"speedup": 2}`
            or `{"ms": 5}`, and with `model` as well `{"decode_latency": 0.7}` or `{"prefill_latency": 0.7}`, as `prune`
            takes them; with `data` a bound, `{"loss": 0.05}`, `{"accuracy": -0.01}` or `{"metric": -0.02}`. Several
            budgets are all met; a bound stands alone. None where `sizes` says all.
        sizes: what single groups keep, `{"layer1.*": 0.5, "layer2.0.conv1": 24}`, as `Plan.with_kept` takes it; the
            budget takes units from the other groups.
        data: examples to try plans on, as `score` takes them. A quarter of them is held out to judge by.
        model: the dense model, for a budget in time: plans are then cut and timed beside it. Without it, times are
            estimated from those of the layers. With `layout` the model whose configuration says the sizes.
        allocation: "auto", the default with `data`: several allocations are tried. "uniform", the default without: the
            same fraction of every group; "global": one ranking of all units, by their scores divided by the root of the
            mean square of their group's (after Molchanov et al. 2017, section 2.2); "raw": one ranking of all units by
            their scores as they are (Molchanov et al. 2019), for criteria whose scores are changes of the loss; "loss":
            where the loss increases least for what is saved, by `curves`. Several names: half-way between them.
        curves: for each group the increase of the loss by the number of removed units, (units + 1,); by default the
            scores themselves where they are such losses, as those by "obs" are, and with "auto" measured on `data`.
        latency: the times of this machine, by `measure_latency`, for a budget in time; by default measured on `data`.
        round_to: numbers of units are multiples of this, where a group has as many; kernels like 8 or 16.
        floor: the fewest units that a group keeps; below 1 a fraction of the group. 0 lets all blocks be removed.
        target: the device whose kernels the sizes are to fill: "auto" for the one that the network is on, "cpu",
            "onnxruntime", "cuda", "tensorrt", "mps", or a processor, "avx512", "avx2", "arm"; "any" for any sizes.
            With `data`, where it is "auto" by default, sizes fill kernels where the loss increases by less than time is
            saved. Without, where it is "any" by default, groups keep multiples of as many channels as the kernels work
            on at once, or stay whole; groups no wider than that keep any number.
        dropped: blocks that are removed as a whole, by their paths, where the network was traced with blocks beside
            other kinds; their units count as removed.
        loss: the user's own loss, as `score` takes it, for a bound on it.
        metric: the user's own metric, as `prune` takes it, for a bound on it.
        repair: the repair that is to follow, as `repair` takes it, or None: with `data`, plans are tried with refitted
            layers if it refits.
        layout: "config", as `prune` takes it; `model` is needed then. None for any sizes.
        context_length: the number of tokens in the cache, or of the prompt, that budgets in `decode_latency` and
            `prefill_latency` are measured with; by default that of the first row of `data`.
        seconds: about how long trying plans may take.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        The plan. `plan.change` has the measured change where the budget is a bound, and `plan.notes` tells decisions.

    Raises:
        NameMatchError: there is no such allocation or target.
        BudgetError: a budget is out of range or in an unknown unit, needs `data`, or can't be met; then the smallest
            reachable value is named.
        DataError: the examples can't be used.
        OptionError: the model's configuration can't say what is removed, or `layout` is given without `model`.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> plan = sc.plan(network, sc.score(network, by="l1"), keep={"macs": 0.5})
        >>> len(plan.kept["0"]), plan.cost.macs / plan.dense.macs
        (4, 0.5)

        With examples, bounds on what is lost:

        >>> x = torch.randn(64, 4)
        >>> plan = sc.plan(network, sc.score(network, by="l1"), {"loss": 0.1}, data=x, progress=False)
        >>> plan.change.within
        True
    """
    budget = parse_budget(keep, sizes)
    check_metric_bound(budget, metric)
    base = WITHOUT_DATA if data is None else DEFAULTS
    config = replace(
        base, allocation=base.allocation if allocation is None else allocation,
        target=base.target if target is None else target,
        dropped=(dropped,) if isinstance(dropped, str) else tuple(dropped), curves=curves, round_to=round_to,
        floor=floor, sizes=sizes, repair=repair, context_length=context_length, loss=loss, metric=metric,
        time=TimeBudget(seconds),
    )  # fmt: skip
    _check_names(config, network)
    if layout is not None:
        network, scores = _within_layout(network, scores, model)
    warn_of_other_weights(network, scores)
    if data is None:
        return plan_without_data(network, scores, budget, config, latency)
    if latency is None:
        _check_time(budget, config.target, model)
    return choose_plan(checked_calibration(network, data, loss, model), scores, budget, config, model, latency)


def _check_names(config: PruneConfig, network: Network) -> None:
    """Check that the allocation, the target and the repair are known.

    Raises:
        NameMatchError: one of them is not.
    """
    check_allocation(config.allocation)
    channel_step(config.target, network.device)
    if config.repair is not None:
        resolve_repairs(config.repair)


def _check_time(budget: Budget, target: str, model: nn.Module | None) -> None:
    """Check that a budget in time, if there is one, can be measured.

    Raises:
        BudgetError: it is a time of text generation, and there is no model.
        SecateurError: the runtime of the target is not installed.
    """
    if has_time(budget):
        check_runtime(runtime_of(target))
    if timed_phase(budget) is not None and model is None:
        raise BudgetError(f"keep={dict(budget)} is a time of text generation, which the model is run for: give model=")


def _within_layout(network: Network, scores: Scores, model: nn.Module | None) -> tuple[Network, Scores]:
    """Return the network and the scores with the groups alone that the model's configuration can say.

    Raises:
        OptionError: there is no model, or its configuration can't say any group.
    """
    if model is None:
        raise OptionError("layout='config' goes by the configuration of the model: give model=")
    check_scores(network, [group for group in network.groups if group.name in scores], scores)
    restricted_network = with_config_layout(bake_parametrizations(model), network)
    groups = {name: scores[name] for name in scores if name in restricted_network.by_name}
    return restricted_network, replace(scores, groups=groups, of="")

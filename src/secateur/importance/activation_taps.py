"""Sites: where a unit's activation is read, after batch norm and nonlinearity."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.coupling.network import Group, Network
from secateur.coupling.rules.registry import rule_of
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.operators import module_path, with_argument
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.importance.context import CriterionContext
from secateur.masking.ablation import chain_overrides
from secateur.masking.operands import operand, operand_node, recorded_operand
from secateur.utils.dtypes import widest_type


@dataclass(frozen=True, eq=False)
class ActivationTap:
    """A tensor that readers read units from.

    Args:
        consumers: those who read it.
        dim: the units' axis.
        units: for each index along it the number of its unit, -1 where it is frozen.
        batch_axis: the axis along which the examples lie.
        outermost: whether, where that axis holds other things too, those of one example lie side by side.
    """

    consumers: tuple[Consumer, ...]
    dim: int
    units: Tensor
    batch_axis: int
    outermost: bool

    def rows(self, values: Tensor, examples: int) -> Tensor:
        """Means over everything but the units' axis and the examples, (size, examples)."""
        if examples == 1:
            alone = values.movedim(self.dim, 0).reshape(values.shape[self.dim], 1, -1)
            return alone.mean(2, dtype=widest_type(values)).cpu().double()
        moved = values.movedim((self.dim, self.batch_axis), (0, 1))
        if not self.outermost:  # (size, parts, examples, ...)
            moved = moved.unflatten(1, (-1, examples)).transpose(1, 2)
        return moved.reshape(moved.shape[0], examples, -1).mean(2, dtype=widest_type(moved)).cpu().double()

    def places(self, values: Tensor, examples: int) -> int:
        """Over how many entries `rows` takes each mean."""
        return values.numel() // (values.shape[self.dim] * examples)


Tap = Callable[[ActivationTap, Tensor], Tensor]


def activation_taps(context: CriterionContext) -> tuple[ActivationTap, ...]:
    """The distinct tensors from which readers read units of the groups to score.

    Raises:
        DataError: the examples can't be told apart in one of them.
    """
    found: defaultdict[tuple[Node, int], list[Consumer]] = defaultdict(list)
    of_weights = context.network.program.state_only
    for consumer in context.network.consumers:
        read = operand_node(consumer)
        if (
            not consumer.is_inner
            and read not in of_weights
            and any(group.owns(consumer.units) for group in context.groups)
        ):
            found[read, consumer.dim].append(consumer)
    sites = tuple(_site(context.network.program, consumers) for consumers in found.values())
    return _laid_out(context, sites)


def _site(program: Program, consumers: Sequence[Consumer]) -> ActivationTap:
    axis = program.batch_axis(recorded_operand(consumers[0]))
    return ActivationTap(
        tuple(consumers), consumers[0].dim, consumers[0].units, 0 if axis is None else axis, outermost=True
    )


def _laid_out(context: CriterionContext, sites: tuple[ActivationTap, ...]) -> tuple[ActivationTap, ...]:
    """Where the batch shares its axis with something else, which of them lies outermost: seen by turning it round."""
    if all(_is_plain(context.network, site) for site in sites):
        return sites
    cell = max(context.microbatches, key=lambda each: each.size or 1)
    examples = cell.size or 1
    one, other = _seen(context, sites, cell), _seen(context, sites, cell.take(torch.arange(examples).flip(0)))
    placed = []
    for site in sites:
        for outermost in (True, False):
            tried = replace(site, outermost=outermost)
            a, b = (tried.rows(seen[site], examples) for seen in (one, other))
            if torch.allclose(a, b.flip(1), rtol=1e-3, atol=1e-5 * float(a.abs().max() + 1e-9)):
                placed.append(tried)
                break
        else:
            raise DataError(
                f"the examples of a batch can't be told apart in what {module_path(site.consumers[0].node)} reads; "
                "this criterion needs that, rank by 'shapley' or 'leave-one-out'"
            )
    return tuple(placed)


def _is_plain(network: Network, site: ActivationTap) -> bool:
    """Whether a site's batch axis holds the examples and nothing else."""
    length = recorded_operand(site.consumers[0]).shape[site.batch_axis]
    return str(length) == network.program.batched or length == network.example.size


def _seen(context: CriterionContext, sites: tuple[ActivationTap, ...], cell: Batch) -> dict[ActivationTap, Tensor]:
    seen: dict[ActivationTap, Tensor] = {}

    def look(site: ActivationTap, x: Tensor) -> Tensor:
        seen[site] = x
        return x

    with torch.no_grad():
        context.forward(cell, tap_handlers(sites, look))
    return seen


def tap_handlers(sites: Iterable[ActivationTap], tap: Tap) -> dict[Node, OpOverride]:
    """Handlers that pass each site's tensor through `tap`, once for all its readers."""
    made: dict[ActivationTap, Tensor] = {}
    by_node: defaultdict[Node, list[OpOverride]] = defaultdict(list)
    for site in sites:
        for consumer in site.consumers:
            by_node[consumer.node].append(partial(_read_tapped, consumer, site, tap, made))
    return {node: chain_overrides(handlers) for node, handlers in by_node.items()}


def _read_tapped(
    consumer: Consumer,
    site: ActivationTap,
    tap: Tap,
    made: dict[ActivationTap, Tensor],
    target: OpFn,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if site not in made:
        made[site] = tap(site, operand(consumer, args, kwargs))
    args, kwargs = with_argument(consumer.node, args, kwargs, consumer.argument, made[site])
    return target(*args, **kwargs)


def straight_through(program: Program) -> dict[Node, OpOverride]:
    """A detached or copied activation is worth as much as another: gradients pass."""
    calls = {node: rule_of(node).straight_through for node in program.nodes}
    return {node: call for node, call in calls.items() if call is not None}


def taps_by_group(
    network: Network, groups: Sequence[Group], rows: Iterable[tuple[ActivationTap, Tensor]], examples: int
) -> dict[str, Tensor]:
    """Rows of all sites summed into units. (units, examples) by group."""
    total = torch.zeros(network.units + 1, examples, dtype=torch.float64)
    for site, values in rows:
        total.index_add_(0, site.units % (network.units + 1), values)
    return {group.name: total[group.span] for group in groups}

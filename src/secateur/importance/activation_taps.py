"""Taps: the tensors from which consumers read units, after batch norm and nonlinearity."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.operators import module_path, with_argument
from secateur.graph.program import OpFn, OpOverride, Program
from secateur.importance.context import CriterionContext, split_microbatches
from secateur.masking.operand_overrides import chain_overrides
from secateur.masking.operands import operand, operand_node, recorded_operand
from secateur.utils.dtypes import as_real, widest_type


@dataclass(frozen=True, eq=False)
class ActivationTap:
    """A tensor from which consumers read units.

    Args:
        consumers: the operators that read it.
        dim: the units' axis.
        units: the unit of each index along it, -1 where it is frozen.
        batch_axis: the axis of the examples.
        outermost: whether entries of one example lie side by side where the axis has several per example.
    """

    consumers: tuple[Consumer, ...]
    dim: int
    units: Tensor
    batch_axis: int
    outermost: bool

    def rows(self, values: Tensor, examples: int) -> Tensor:
        """Return means over all axes but the units' and the examples', (size, examples)."""
        if examples == 1:
            by_index = values.movedim(self.dim, 0).reshape(values.shape[self.dim], 1, -1)
            return by_index.mean(2, dtype=widest_type(values)).cpu().double()
        by_unit = values.movedim((self.dim, self.batch_axis), (0, 1))
        if not self.outermost:  # (size, entries, examples, ...)
            by_unit = by_unit.unflatten(1, (-1, examples)).transpose(1, 2)
        return by_unit.reshape(by_unit.shape[0], examples, -1).mean(2, dtype=widest_type(by_unit)).cpu().double()

    def entries_per_mean(self, values: Tensor, examples: int) -> int:
        """Return the number of entries in each mean of `rows`."""
        return values.numel() // (values.shape[self.dim] * examples)


TapFunction = Callable[[ActivationTap, Tensor], Tensor]


def tapped_context(context: CriterionContext) -> tuple[CriterionContext, tuple[ActivationTap, ...]]:
    """Return the taps, and the context whose microbatches have rows by example in each of them.

    Experts read the tokens of all examples in the order in which they were routed, so that the rows of an example are
    known only where it runs alone. Then each microbatch is one example.

    Args:
        context: the criterion's input.

    Returns:
        The context, with microbatches of one example where a tap does not tell examples apart, and the taps.

    Raises:
        DataError: the examples can't be told apart in a tap, and a microbatch can't be divided.
    """
    taps = _activation_taps(context)
    if all(_has_plain_batch_axis(context.network, tap) for tap in taps):
        return context, taps
    resolved_taps = _with_batch_layout(context, taps)
    mixed_taps = [tap for tap, with_layout in zip(taps, resolved_taps, strict=True) if with_layout is None]
    if not mixed_taps:
        return context, tuple(tap for tap in resolved_taps if tap is not None)
    single_examples = split_microbatches(context.microbatches, context.network.device, 1)
    if any((batch.size or 1) > 1 for batch in single_examples) or context.network.program.batched is None:
        raise DataError(
            f"the examples of a batch can't be told apart in what {module_path(mixed_taps[0].consumers[0].node)} "
            "reads, and the network takes no single examples; rank by 'shapley' or 'leave-one-out'"
        )
    return replace(context, microbatches=single_examples), taps


def _activation_taps(context: CriterionContext) -> tuple[ActivationTap, ...]:
    """Return the distinct tensors from which consumers read units of the groups to score."""
    by_operand: defaultdict[tuple[Node, int], list[Consumer]] = defaultdict(list)
    weight_nodes = context.network.program.state_only
    for consumer in context.network.consumers:
        node = operand_node(consumer)
        if (
            not consumer.is_inner
            and node not in weight_nodes
            and any(group.owns(consumer.units) for group in context.groups)
        ):
            by_operand[node, consumer.dim].append(consumer)
    return tuple(_activation_tap(context.network.program, consumers) for consumers in by_operand.values())


def _activation_tap(program: Program, consumers: Sequence[Consumer]) -> ActivationTap:
    axis = program.batch_axis(recorded_operand(consumers[0]))
    return ActivationTap(
        tuple(consumers), consumers[0].dim, consumers[0].units, 0 if axis is None else axis, outermost=True
    )


def _with_batch_layout(context: CriterionContext, taps: tuple[ActivationTap, ...]) -> tuple[ActivationTap | None, ...]:
    """Set `outermost` of each tap, by comparing a microbatch with the same in reverse order.

    Returns:
        The taps; None in place of one that does not tell examples apart.
    """
    batch = max(context.microbatches, key=lambda batch: batch.size or 1)
    examples = batch.size or 1
    forward = _tapped_values(context, taps, batch)
    reverse = _tapped_values(context, taps, batch.take(torch.arange(examples).flip(0)))

    def with_layout(tap: ActivationTap) -> ActivationTap | None:
        for outermost in (True, False):
            candidate = replace(tap, outermost=outermost)
            a, b = (candidate.rows(as_real(values[tap]), examples) for values in (forward, reverse))
            if torch.allclose(a, b.flip(1), rtol=1e-3, atol=1e-5 * float(a.abs().max() + 1e-9)):
                return candidate
        return None

    return tuple(map(with_layout, taps))


def _has_plain_batch_axis(network: Network, tap: ActivationTap) -> bool:
    """Return whether a tap's batch axis has one entry per example."""
    length = recorded_operand(tap.consumers[0]).shape[tap.batch_axis]
    return str(length) == network.program.batched or length == network.example.size


def _tapped_values(
    context: CriterionContext, taps: tuple[ActivationTap, ...], batch: Batch
) -> dict[ActivationTap, Tensor]:
    values: dict[ActivationTap, Tensor] = {}

    def record(tap: ActivationTap, x: Tensor) -> Tensor:
        values[tap] = x
        return x

    with torch.no_grad():
        context.forward(batch, tap_handlers(taps, record))
    return values


def tap_handlers(taps: Iterable[ActivationTap], function: TapFunction) -> dict[Node, OpOverride]:
    """Return overrides that pass each tap's tensor through a function, once for all its consumers.

    Args:
        taps: the taps.
        function: a function from a tap and its tensor to the tensor that consumers read.
    """
    results: dict[ActivationTap, Tensor] = {}
    by_node: defaultdict[Node, list[OpOverride]] = defaultdict(list)
    for tap in taps:
        for consumer in tap.consumers:
            by_node[consumer.node].append(partial(_call_with_tap, consumer, tap, function, results))
    return {node: chain_overrides(handlers) for node, handlers in by_node.items()}


def _call_with_tap(
    consumer: Consumer,
    tap: ActivationTap,
    function: TapFunction,
    results: dict[ActivationTap, Tensor],
    target: OpFn,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if tap not in results:
        results[tap] = function(tap, operand(consumer, args, kwargs))
    args, kwargs = with_argument(consumer.node, args, kwargs, consumer.argument, results[tap])
    return target(*args, **kwargs)


def taps_by_group(
    network: Network, groups: Sequence[Group], rows: Iterable[tuple[ActivationTap, Tensor]], examples: int
) -> dict[str, Tensor]:
    """Return the rows of all taps, summed into units. (units, examples) by group."""
    total = torch.zeros(network.units + 1, examples, dtype=torch.float64)
    for tap, values in rows:
        total.index_add_(0, tap.units % (network.units + 1), values)
    return {group.name: total[group.span] for group in groups}

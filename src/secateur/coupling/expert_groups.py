"""Experts as units: what a second walk finds on other axes of the same parameters."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secateur.coupling.consumers import Consumer
from secateur.coupling.cost import Work
from secateur.coupling.group import Group
from secateur.coupling.grouping import Units, build_groups
from secateur.coupling.label_tracer import LabelTracer
from secateur.coupling.network import Network


def add_experts(network: Network, first_tracer: LabelTracer, tracer: LabelTracer) -> Network:
    """Add the groups of experts to a network.

    Args:
        network: the network that the first walk gave.
        first_tracer: the first walk.
        tracer: the walk for experts.
    """
    expert_units = build_groups(tracer)
    placed_groups, number = _place_groups(network, first_tracer, tracer, expert_units)

    def units(labels: Tensor) -> Tensor:
        return number[expert_units(labels)]

    consumers = (Consumer(read.node, read.argument, read.dim, units(read.labels), None) for read in tracer.notes.reads)
    sizes = (literal.renumbered(units) for literal in tracer.notes.literals)
    members = [member for group in placed_groups for member in group.members]
    tensors = {member.tensor for member in members}
    return replace(
        network,
        groups=(*network.groups, *placed_groups),
        members=(*network.members, *members),
        consumers=(*network.consumers, *(consumer for consumer in consumers if bool((consumer.units >= 0).any()))),
        work=tuple(_work_beside_experts(network, first_tracer, tracer, units)),
        frozen=tuple(frozen for frozen in network.frozen if f"{frozen.name}.weight" not in tensors),
        reshaping={**network.reshaping, **{group.name: () for group in placed_groups}},
        sizes=(*network.sizes, *(size for size in sizes if bool((size.units >= 0).all(1).any()))),
    )


def _place_groups(
    network: Network, first_tracer: LabelTracer, tracer: LabelTracer, expert_units: Units
) -> tuple[Sequence[Group], Tensor]:
    """Return the groups that own stacks of weights, and for each unit of the walk its number in the network."""
    stacked_axes = {key for _, weight, _ in first_tracer.experts.stacks for key in weight.keys}
    owned_axes = {(member.tensor, member.axis) for member in network.members}
    number = torch.full((sum(group.size for group in expert_units.groups) + 1,), -1)
    groups, offset = [], network.units
    for group in expert_units.groups:
        keys = {(member.tensor, member.axis) for member in group.members}
        if not keys & stacked_axes or keys & owned_axes:
            continue
        number[group.span] = torch.arange(offset, offset + group.size)
        choice_counts = [count for _, labels, count in tracer.experts.choices if group.owns(expert_units(labels))]
        members = tuple(replace(member, units=number[member.units]) for member in group.members)
        groups.append(replace(group, offset=offset, members=members, fewest=max([1, *choice_counts])))
        offset += group.size
    return groups, number


def _work_beside_experts(
    network: Network, first_tracer: LabelTracer, tracer: LabelTracer, units: Callable[[Tensor], Tensor]
) -> Iterator[Work]:
    """Yield the work of every operator, which is less where experts are removed.

    The work that the first walk counted comes in its order.
    """
    shared_units = {
        cost.node: axis
        for cost in tracer.notes.costs
        for axis in map(units, cost.axes)
        if bool((axis >= 0).all()) and len(axis)
    }
    costs = first_tracer.notes.costs
    for position, term in enumerate(network.work):
        axis = shared_units.get(costs[position].node) if position < len(costs) else None
        yield term if axis is None else replace(term, constant=term.constant / len(axis), axes=(*term.axes, axis))

"""Run the program with units removed, exactly as if they had been cut.

At every reader the absent units count as nothing: a contraction gets zeros in their place, a normalisation over
channels takes its statistics from the units that stay. Where ablation keeps each unit's mean, what the reader would
have made of that constant is added to its result, as it will be added to a bias when the network is cut.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import ConstantSink, Consumer, Network
from secateur.coupling.rules.windows import AVERAGES
from secateur.data.batch import Batch
from secateur.graph.program import OpFn, OpOverride, Program, arguments, operator_name, wide, widest, with_argument
from secateur.graph.random_draws import replayed_left
from secateur.masking.computed_weights import by_coalition, is_shared_by_batch
from secateur.masking.norms import MASKED_NORMS
from secateur.masking.recurrent import masked_recurrence
from secateur.masking.windows import among_those_that_stay

Means = Mapping[str, Tensor]


def consumer_key(consumer: Consumer) -> str:
    """The name under which a reader's means are kept."""
    return f"{consumer.node.name}:{consumer.argument}"


LINEAR = ("linear", "addmm")


@dataclass(frozen=True)
class MeanAblation:
    """What stands in the place of absent units.

    Args:
        means: the mean of each reader's input along the units' axis, (size,) by `reader_key`; empty: zero.
    """

    means: Means
    _matrices: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def adds_up(self) -> bool:
        """Whether what a linear reader gives is the sum of what each unit adds."""
        return True

    def handlers(
        self, network: Network, masks: Tensor, consumers: Iterable[Consumer] | None = None
    ) -> dict[Node, OpOverride]:
        """The readers' operators as they are when units are absent.

        Args:
            network: the network.
            masks: which units stay (coalitions, units + 1); a batch holds its examples for each coalition in turn.
                Booleans, or numbers to take gradients by, which are never passed over where all are 1.
            readers: the readers concerned, all by default.
        """
        by_node: defaultdict[Node, list[OpOverride]] = defaultdict(list)
        consumers = network.consumers if consumers is None else tuple(consumers)
        of_weights: list[Node] = []
        for consumer in consumers:
            present = masks[:, consumer.units]
            if not masks.is_floating_point() and bool(present.all()):
                continue
            if len(masks) > 1 and not consumer.is_inner and is_shared_by_batch(network.program, operand_node(consumer)):
                of_weights.append(consumer.node)
            else:
                by_node[consumer.node].append(self._handler(network.program, consumer, present))
        found = {node: chained(handlers) for node, handlers in by_node.items()}
        if not of_weights:
            return found
        each = [self.handlers(network, mask, consumers) for mask in masks.split(1)]
        return {**found, **by_coalition(network.program, of_weights, each)}

    def _handler(self, program: Program, consumer: Consumer, present: Tensor) -> OpOverride:
        name = operator_name(consumer.node)
        if consumer.is_inner:
            return partial(masked_recurrence, program, consumer.node, consumer.argument, present)
        if name in MASKED_NORMS:
            return partial(_masked_norm, MASKED_NORMS[name], program, consumer, present)
        if name in AVERAGES:
            return partial(_masked_windows, program, consumer, present)
        mean = self.means.get(consumer_key(consumer)) if consumer.fold is not None else None
        if mean is not None and name in LINEAR and len(present) > 1:
            return _replaced(program, consumer, present, mean)
        return _silenced(program, consumer, present, self.constant(program, consumer, present))

    def constant(self, program: Program, consumer: Consumer, present: Tensor) -> Tensor | None:
        """What a reader makes of the means of absent units, (coalitions, out) in float64; None where it gets nothing.

        Args:
            present: which entries of its input stay (coalitions, in).
        """
        mean = self.means.get(consumer_key(consumer))
        if consumer.fold is None or mean is None:
            return None
        weight = program.state(consumer.fold.weight).detach()
        mean = mean.to(present.device)
        absent = (1 - present.to(mean)) * mean
        if len(present) == 1:
            return contribution(weight, consumer.fold, absent)
        if consumer.fold.weight not in self._matrices:
            self._matrices[consumer.fold.weight] = over_space(weight, consumer.fold)
        return masked_grouped_product(self._matrices[consumer.fold.weight], consumer.fold, absent)


def chained(handlers: Sequence[OpOverride]) -> OpOverride:
    """Several handlers of one operator as one, each of which changes another argument."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = target
        for each in handlers:
            call = partial(lambda inner, h, *a, **k: h(inner, a, k), call, each)
        return call(*args, **kwargs)

    return handler if len(handlers) > 1 else handlers[0]


def contribution(weight: Tensor, fold: ConstantSink, inputs: Tensor) -> Tensor:
    """What a linear layer or convolution makes of inputs that are constant over space.

    Args:
        weight: (out, in / groups, *kernel), or with the axes that `fold.inner` says.
        fold: the reader's.
        inputs: (coalitions, in).

    Returns:
        (coalitions, out), in float64.
    """
    if len(inputs) == 1 and fold.groups == 1:  # only what is not zero counts, of which there may be little
        read = torch.nonzero(inputs[0]).flatten()
        weight, inputs = weight.index_select(fold.inner, read.to(weight.device)), inputs[:, read]
    return masked_grouped_product(over_space(weight, fold), fold, inputs)


def over_space(weight: Tensor, fold: ConstantSink) -> Tensor:
    """A weight summed over its kernel, (out, in / groups) in float64."""
    matrix = wide(weight).movedim(fold.inner, 1)
    return matrix.flatten(2).sum(2) if weight.dim() > 2 else matrix


def masked_grouped_product(matrix: Tensor, fold: ConstantSink, inputs: Tensor) -> Tensor:
    """A matrix (out, in / groups), group by group, times inputs (coalitions, in). (coalitions, out)"""
    parts = inputs.to(matrix).unflatten(1, (fold.groups, -1))  # (coalitions, groups, in / groups)
    rows = matrix.unflatten(0, (fold.groups, -1))  # (groups, out / groups, in / groups)
    return torch.einsum("cgi,goi->cgo", parts, rows).flatten(1)


def shaped(values: Tensor, x: Tensor, dim: int, batch_axis: int | None) -> Tensor:
    """Values (coalitions, size) as a factor of x, whose batch holds its examples for each coalition in turn."""
    view = [1] * x.dim()
    view[dim] = values.shape[1]
    if values.shape[0] == 1:
        return values.view(view)
    assert batch_axis is not None and batch_axis != dim
    view[batch_axis] = x.shape[batch_axis]
    repeated = values.repeat_interleave(x.shape[batch_axis] // values.shape[0], 0)  # (examples stacked, size)
    return (repeated if batch_axis < dim else repeated.t()).reshape(view)


def changed(consumer: Consumer, change: Callable[[Tensor], Tensor]) -> OpOverride:
    """The reader's operator with another operand in the place of its own."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = change(operand(consumer, args, kwargs))
        args, kwargs = with_argument(consumer.node, args, kwargs, consumer.argument, x)
        return target(*args, **kwargs)

    return handler


def _silenced(program: Program, consumer: Consumer, present: Tensor, constant: Tensor | None) -> OpOverride:
    """Absent units read as nothing, and the constant is added that their means would have made."""
    axis = program.batch_axis(recorded_operand(consumer))
    share = _share(consumer, present)
    silent = changed(consumer, lambda x: x * shaped(share.to(x), x, consumer.dim, axis))
    if constant is None:
        return silent

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = silent(target, args, kwargs)
        return result + shaped(constant.to(result), result, consumer.dim, axis)

    return handler


def _replaced(program: Program, consumer: Consumer, present: Tensor, mean: Tensor) -> OpOverride:
    """A linear layer that reads absent units' means in their place: nothing is padded, so that is their constant."""
    axis = program.batch_axis(recorded_operand(consumer))
    mean = mean.to(present.device)
    absent = (1 - present.to(mean)) * mean

    def filled(x: Tensor) -> Tensor:
        factor, means = (shaped(part.to(x), x, consumer.dim, axis) for part in (present, absent))
        return torch.addcmul(means, x, factor)

    return changed(consumer, filled)


def _share(consumer: Consumer, present: Tensor) -> Tensor:
    """Presence as a factor; attention that takes its scale from the width scales what is left the more."""
    whole = present.double()
    if operator_name(consumer.node) == "scaled_dot_product_attention" and arguments(consumer.node).get("scale") is None:
        return whole * (present.shape[1] / whole.sum(1, keepdim=True).clamp_min(1)).sqrt()
    return whole


class ConsumerReads(Protocol):
    """An operator and the name of the argument that it reads units from."""

    @property
    def node(self) -> Node: ...

    @property
    def argument(self) -> str: ...


def operand(consumer: ConsumerReads, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = [argument.name for argument in consumer.node.target._schema.arguments]  # type: ignore[union-attr]
    value: Tensor = kwargs[consumer.argument] if consumer.argument in kwargs else args[names.index(consumer.argument)]
    return value


def operand_node(consumer: Consumer) -> Node:
    """The operator, parameter or input whose value a reader reads."""
    node: Node = arguments(consumer.node)[consumer.argument]
    return node


def recorded_operand(consumer: Consumer) -> Any:
    """What the export recorded of a reader's operand: its symbolic shape."""
    return operand_node(consumer).meta["val"]


def _masked_norm(
    norm: Callable[..., Tensor],
    program: Program,
    consumer: Consumer,
    present: Tensor,
    target: OpFn,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    x = operand(consumer, args, kwargs)
    names = [argument.name for argument in consumer.node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**arguments(consumer.node), **dict(zip(names, args, strict=False)), **kwargs}
    factor = shaped(present.to(x), x, consumer.dim, program.batch_axis(recorded_operand(consumer)))
    return norm(factor, **given)


def _masked_windows(
    program: Program, consumer: Consumer, present: Tensor, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    x = operand(consumer, args, kwargs)
    factor = shaped(present.to(x), x, consumer.dim, program.batch_axis(recorded_operand(consumer)))
    return among_those_that_stay(consumer.node, consumer.dim, factor, x, target, args, kwargs)


def run_masked(network: Network, batch: Batch, mask: Tensor, means: Means) -> Any:
    """The network's output on a batch with only the units of one mask (units + 1,)."""
    with torch.no_grad():
        return network.program.forward(batch, MeanAblation(means).handlers(network, mask[None]))


def masked_draws(network: Network, batch: Batch, mask: Tensor, means: Means) -> AbstractContextManager[Any]:
    """A context within which a cut network draws what the masked run draws, without the entries of absent units."""

    def run(noting: Mapping[Node, OpOverride]) -> None:
        handlers = MeanAblation(means).handlers(network, mask[None])
        both = {node: [h[node] for h in (handlers, noting) if node in h] for node in {**handlers, **noting}}
        network.program.forward(batch, {node: chained(own) for node, own in both.items()})

    return replayed_left(run, {draw.node: draw for draw in network.draws}, mask)


def consumer_means(network: Network, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The mean of every foldable reader's input along its units' axis, over all batches. (size,) in float64."""
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    counts: defaultdict[str, int] = defaultdict(int)

    def watch(consumer: Consumer) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = operand(consumer, args, kwargs)
            others = [dim for dim in range(x.dim()) if dim != consumer.dim]
            total = x.sum(others, dtype=widest(x)) if others else x
            sums[consumer_key(consumer)] = sums[consumer_key(consumer)] + total.cpu().double()
            counts[consumer_key(consumer)] += x.numel() // x.shape[consumer.dim]
            return target(*args, **kwargs)

        return handler

    handlers = {consumer.node: watch(consumer) for consumer in network.consumers if consumer.fold is not None}
    with torch.no_grad():
        for batch in batches:
            network.program.forward(batch, handlers)
    return {key: total / counts[key] for key, total in sums.items()}

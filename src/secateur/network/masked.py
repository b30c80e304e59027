"""Run the program with units removed, exactly as if they had been cut.

At every reader the absent units count as nothing: a contraction gets zeros in their place, a normalisation over
channels takes its statistics from the units that stay. Where removal keeps each unit's mean, what the reader would
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

from secateur.data import Batch
from secateur.network.draws import replayed_left
from secateur.network.labels import operator_name
from secateur.network.masked_norms import MASKED_NORMS
from secateur.network.masked_recurrent import masked_recurrence
from secateur.network.masked_weights import by_coalition, is_shared_by_batch
from secateur.network.masked_windows import among_those_that_stay
from secateur.network.program import Call, Handler, Program, arguments, wide, widest, with_argument
from secateur.network.units import Fold, Network, Reader
from secateur.network.windows import AVERAGES

Means = Mapping[str, Tensor]


def reader_key(reader: Reader) -> str:
    """The name under which a reader's means are kept."""
    return f"{reader.node.name}:{reader.argument}"


LINEAR = ("linear", "addmm")


@dataclass(frozen=True)
class Removal:
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

    def handlers(self, network: Network, masks: Tensor, readers: Iterable[Reader] | None = None) -> dict[Node, Handler]:
        """The readers' operators as they are when units are absent.

        Args:
            network: the network.
            masks: which units stay (coalitions, units + 1); a batch holds its examples for each coalition in turn.
                Booleans, or numbers to take gradients by, which are never passed over where all are 1.
            readers: the readers concerned, all by default.
        """
        by_node: defaultdict[Node, list[Handler]] = defaultdict(list)
        readers = network.readers if readers is None else tuple(readers)
        of_weights: list[Node] = []
        for reader in readers:
            present = masks[:, reader.units]
            if not masks.is_floating_point() and bool(present.all()):
                continue
            if len(masks) > 1 and not reader.is_inner and is_shared_by_batch(network.program, operand_node(reader)):
                of_weights.append(reader.node)
            else:
                by_node[reader.node].append(self._handler(network.program, reader, present))
        found = {node: chained(handlers) for node, handlers in by_node.items()}
        if not of_weights:
            return found
        each = [self.handlers(network, mask, readers) for mask in masks.split(1)]
        return {**found, **by_coalition(network.program, of_weights, each)}

    def _handler(self, program: Program, reader: Reader, present: Tensor) -> Handler:
        name = operator_name(reader.node)
        if reader.is_inner:
            return partial(masked_recurrence, program, reader.node, reader.argument, present)
        if name in MASKED_NORMS:
            return partial(_masked_norm, MASKED_NORMS[name], program, reader, present)
        if name in AVERAGES:
            return partial(_masked_windows, program, reader, present)
        mean = self.means.get(reader_key(reader)) if reader.fold is not None else None
        if mean is not None and name in LINEAR and len(present) > 1:
            return _replaced(program, reader, present, mean)
        return _silenced(program, reader, present, self.constant(program, reader, present))

    def constant(self, program: Program, reader: Reader, present: Tensor) -> Tensor | None:
        """What a reader makes of the means of absent units, (coalitions, out) in float64; None where it gets nothing.

        Args:
            present: which entries of its input stay (coalitions, in).
        """
        mean = self.means.get(reader_key(reader))
        if reader.fold is None or mean is None:
            return None
        weight = program.state(reader.fold.weight).detach()
        mean = mean.to(present.device)
        absent = (1 - present.to(mean)) * mean
        if len(present) == 1:
            return contribution(weight, reader.fold, absent)
        if reader.fold.weight not in self._matrices:
            self._matrices[reader.fold.weight] = over_space(weight, reader.fold)
        return grouped_product(self._matrices[reader.fold.weight], reader.fold, absent)


def chained(handlers: Sequence[Handler]) -> Handler:
    """Several handlers of one operator as one, each of which changes another argument."""

    def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = target
        for each in handlers:
            call = partial(lambda inner, h, *a, **k: h(inner, a, k), call, each)
        return call(*args, **kwargs)

    return handler if len(handlers) > 1 else handlers[0]


def contribution(weight: Tensor, fold: Fold, inputs: Tensor) -> Tensor:
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
    return grouped_product(over_space(weight, fold), fold, inputs)


def over_space(weight: Tensor, fold: Fold) -> Tensor:
    """A weight summed over its kernel, (out, in / groups) in float64."""
    matrix = wide(weight).movedim(fold.inner, 1)
    return matrix.flatten(2).sum(2) if weight.dim() > 2 else matrix


def grouped_product(matrix: Tensor, fold: Fold, inputs: Tensor) -> Tensor:
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


def changed(reader: Reader, change: Callable[[Tensor], Tensor]) -> Handler:
    """The reader's operator with another operand in the place of its own."""

    def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = change(operand(reader, args, kwargs))
        args, kwargs = with_argument(reader.node, args, kwargs, reader.argument, x)
        return target(*args, **kwargs)

    return handler


def _silenced(program: Program, reader: Reader, present: Tensor, constant: Tensor | None) -> Handler:
    """Absent units read as nothing, and the constant is added that their means would have made."""
    axis = program.batch_axis(recorded_operand(reader))
    share = _share(reader, present)
    silent = changed(reader, lambda x: x * shaped(share.to(x), x, reader.dim, axis))
    if constant is None:
        return silent

    def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = silent(target, args, kwargs)
        return result + shaped(constant.to(result), result, reader.dim, axis)

    return handler


def _replaced(program: Program, reader: Reader, present: Tensor, mean: Tensor) -> Handler:
    """A linear layer that reads absent units' means in their place: nothing is padded, so that is their constant."""
    axis = program.batch_axis(recorded_operand(reader))
    mean = mean.to(present.device)
    absent = (1 - present.to(mean)) * mean

    def filled(x: Tensor) -> Tensor:
        factor, means = (shaped(part.to(x), x, reader.dim, axis) for part in (present, absent))
        return torch.addcmul(means, x, factor)

    return changed(reader, filled)


def _share(reader: Reader, present: Tensor) -> Tensor:
    """Presence as a factor; attention that takes its scale from the width scales what is left the more."""
    whole = present.double()
    if operator_name(reader.node) == "scaled_dot_product_attention" and arguments(reader.node).get("scale") is None:
        return whole * (present.shape[1] / whole.sum(1, keepdim=True).clamp_min(1)).sqrt()
    return whole


class Reads(Protocol):
    """An operator and the name of the argument that it reads units from."""

    @property
    def node(self) -> Node: ...

    @property
    def argument(self) -> str: ...


def operand(reader: Reads, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = [argument.name for argument in reader.node.target._schema.arguments]  # type: ignore[union-attr]
    value: Tensor = kwargs[reader.argument] if reader.argument in kwargs else args[names.index(reader.argument)]
    return value


def operand_node(reader: Reader) -> Node:
    """The operator, parameter or input whose value a reader reads."""
    node: Node = arguments(reader.node)[reader.argument]
    return node


def recorded_operand(reader: Reader) -> Any:
    """What the export recorded of a reader's operand: its symbolic shape."""
    return operand_node(reader).meta["val"]


def _masked_norm(
    norm: Callable[..., Tensor],
    program: Program,
    reader: Reader,
    present: Tensor,
    target: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    x = operand(reader, args, kwargs)
    names = [argument.name for argument in reader.node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**arguments(reader.node), **dict(zip(names, args, strict=False)), **kwargs}
    factor = shaped(present.to(x), x, reader.dim, program.batch_axis(recorded_operand(reader)))
    return norm(factor, **given)


def _masked_windows(
    program: Program, reader: Reader, present: Tensor, target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    x = operand(reader, args, kwargs)
    factor = shaped(present.to(x), x, reader.dim, program.batch_axis(recorded_operand(reader)))
    return among_those_that_stay(reader.node, reader.dim, factor, x, target, args, kwargs)


def run_masked(network: Network, batch: Batch, mask: Tensor, means: Means) -> Any:
    """The network's output on a batch with only the units of one mask (units + 1,)."""
    with torch.no_grad():
        return network.program.forward(batch, Removal(means).handlers(network, mask[None]))


def draws_of_masked(network: Network, batch: Batch, mask: Tensor, means: Means) -> AbstractContextManager[Any]:
    """A context within which a cut network draws what the masked run draws, without the entries of absent units."""

    def run(noting: Mapping[Node, Handler]) -> None:
        handlers = Removal(means).handlers(network, mask[None])
        both = {node: [h[node] for h in (handlers, noting) if node in h] for node in {**handlers, **noting}}
        network.program.forward(batch, {node: chained(own) for node, own in both.items()})

    return replayed_left(run, {draw.node: draw for draw in network.draws}, mask)


def reader_means(network: Network, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The mean of every foldable reader's input along its units' axis, over all batches. (size,) in float64."""
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    counts: defaultdict[str, int] = defaultdict(int)

    def watch(reader: Reader) -> Handler:
        def handler(target: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = operand(reader, args, kwargs)
            others = [dim for dim in range(x.dim()) if dim != reader.dim]
            total = x.sum(others, dtype=widest(x)) if others else x
            sums[reader_key(reader)] = sums[reader_key(reader)] + total.cpu().double()
            counts[reader_key(reader)] += x.numel() // x.shape[reader.dim]
            return target(*args, **kwargs)

        return handler

    handlers = {reader.node: watch(reader) for reader in network.readers if reader.fold is not None}
    with torch.no_grad():
        for batch in batches:
            network.program.forward(batch, handlers)
    return {key: total / counts[key] for key, total in sums.items()}

"""The means of units over examples, which replace ablated units."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.consumers import Consumer
from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.graph.program import OpFn, OpOverride
from secateur.masking.ablation import consumer_key
from secateur.masking.operands import operand
from secateur.utils.dtypes import widest_type


def consumer_means(network: Network, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Compute the mean input of every foldable consumer, over all batches. (size,) in float64"""
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    counts: defaultdict[str, int] = defaultdict(int)

    def watch(consumer: Consumer) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = operand(consumer, args, kwargs)
            other_dims = [dim for dim in range(x.dim()) if dim != consumer.dim]
            total = x.sum(other_dims, dtype=widest_type(x)) if other_dims else x
            sums[consumer_key(consumer)] = sums[consumer_key(consumer)] + total.cpu().double()
            counts[consumer_key(consumer)] += x.numel() // x.shape[consumer.dim]
            return target(*args, **kwargs)

        return handler

    handlers = {consumer.node: watch(consumer) for consumer in network.consumers if consumer.fold is not None}
    with torch.no_grad():
        for batch in batches:
            network.program.forward(batch, handlers)
    return {key: total / counts[key] for key, total in sums.items()}

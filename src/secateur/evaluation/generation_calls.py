"""Operators of a program as a phase of text generation calls them: layers on fewer tokens, attention to a cache."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.evaluation.generation import MATRIX_DIMS, PREFILL, GenerationPhase
from secateur.evaluation.operator_calls import OperatorCall
from secateur.graph.contexts import isolated_evaluation
from secateur.graph.operators import module_path, operator_name, with_argument
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class GenerationCalls:
    """The calls of a network's operators in a phase of text generation.

    Args:
        phase: the phase.
        rows: for each module that runs in it the rows of its input (1 token: 1 row), by path.
    """

    phase: GenerationPhase
    rows: dict[str, int]

    def of_layer(self, layer: LinearLayer, call: OperatorCall) -> OperatorCall | None:
        """Return the call of a layer on as many tokens as in the phase; None where it does not run."""
        path = module_path(layer.node)
        if path not in self.rows:
            return None
        x = operand(layer, call.args, call.kwargs)
        if layer.is_convolution or x.dim() < MATRIX_DIMS or layer.dim != x.dim() - 1:
            return call
        x = _with_rows(x, self.rows[path])
        return OperatorCall(call.target, *with_argument(layer.node, call.args, call.kwargs, layer.argument, x))

    def of_operator(self, node: Node, call: OperatorCall) -> OperatorCall | None:
        """Return the call of an attention product with the keys of the cache; None for other operators."""
        if operator_name(node) != ATTENTION or module_path(node) not in self.rows:
            return None
        schema = node.target._schema  # type: ignore[union-attr]
        by_name = {
            **dict(zip((argument.name for argument in schema.arguments), call.args, strict=False)),
            **call.kwargs,
        }
        queries, keys, values = (by_name[name] for name in ("query", "key", "value"))
        count = self.phase.length if self.phase.name == PREFILL else 1
        if keys.shape[-2] == queries.shape[-2]:  # attention to the tokens themselves, not to an encoder's output
            keys, values = (_with_rows(tensor, self.phase.length) for tensor in (keys, values))
        queries = _with_rows(queries, count)
        further_arguments = {name: by_name[name] for name in ("scale", "enable_gqa") if name in by_name}
        return OperatorCall(call.target, (queries, keys, values), {"is_causal": count > 1, **further_arguments})


def generation_calls(model: nn.Module, phase: GenerationPhase) -> GenerationCalls:
    """Run a phase of text generation once, and record on how many tokens each module runs.

    Args:
        model: the dense model; its hooks and state are as before afterwards.
        phase: the phase.
    """
    rows: dict[str, int] = {}

    def record(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 1)
            x = next(tensors, torch.empty(1, 1))
            rows[path] = x.shape[:-1].numel()

        return hook

    handles: list[Any] = []
    with isolated_evaluation(model):
        call = phase.call(model)
        try:
            for path, module in model.named_modules(remove_duplicate=False):
                handles.append(module.register_forward_pre_hook(record(path), with_kwargs=True))
            call()
        finally:
            for handle in handles:
                handle.remove()
    return GenerationCalls(phase, rows)


def _with_rows(tensor: Tensor, count: int) -> Tensor:
    """Return a tensor of one example with another number of rows, (1, ..., count, features)."""
    row = (tensor[:1] if tensor.dim() > MATRIX_DIMS else tensor)[..., :1, :]
    return row.expand(*row.shape[:-2], count, row.shape[-1]).contiguous()

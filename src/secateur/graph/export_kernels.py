"""Settings that make an export cheaper: whole recurrent layers, no cache of symbolic shapes, short expressions.

During an export, torch runs every operator on tensors without data to learn the shapes of its results. It runs a
recurrent layer step by step for this, so the time grows with the length of the sequence. With a batch size that may
vary it also caches every result, and storing symbolic shapes costs more than computing them again.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import config as fx_config

RecurrentKernel = Callable[..., Tensor | tuple[Tensor, ...]]


def lstm_results(
    input: Tensor, hx: list[Tensor], params: list[Tensor], has_biases: bool, num_layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return tensors of the shapes of an LSTM's output and its last hidden and cell states."""
    return _sequence_like(input, hx[0], bidirectional), torch.empty_like(hx[0]), torch.empty_like(hx[1])


def hidden_state_results(
    input: Tensor, hx: Tensor, params: list[Tensor], has_biases: bool, num_layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return tensors of the shapes of the output and the last hidden state of a GRU or a plain recurrent layer."""
    return _sequence_like(input, hx, bidirectional), torch.empty_like(hx)


def lstm_cell_results(input: Tensor, hx: list[Tensor], *weights: Tensor | None) -> tuple[Tensor, ...]:
    """Return tensors of the shapes of the hidden and the cell state after one step."""
    return torch.empty_like(hx[0]), torch.empty_like(hx[1])


def hidden_state_after_step(input: Tensor, hx: Tensor, *weights: Tensor | None) -> Tensor:
    """Return a tensor of the shape of the hidden state after one step of a GRU or a plain recurrent cell."""
    return torch.empty_like(hx)


def _sequence_like(input: Tensor, state: Tensor, bidirectional: bool) -> Tensor:
    """Return an output of each step of the input; the directions are concatenated."""
    return input.new_empty((*input.shape[:-1], state.shape[-1] * (2 if bidirectional else 1)))


SHAPE_KERNELS: dict[OpOverload, RecurrentKernel] = {
    torch.ops.aten.lstm.input: lstm_results,
    torch.ops.aten.gru.input: hidden_state_results,
    torch.ops.aten.rnn_tanh.input: hidden_state_results,
    torch.ops.aten.rnn_relu.input: hidden_state_results,
    torch.ops.aten.lstm_cell.default: lstm_cell_results,  # on CUDA, fused cells tell no shapes
    torch.ops.aten.gru_cell.default: hidden_state_after_step,
    torch.ops.aten.rnn_tanh_cell.default: hidden_state_after_step,
    torch.ops.aten.rnn_relu_cell.default: hidden_state_after_step,
}
DECOMPOSED_AT = (torch._C.DispatchKey.Autograd, torch._C.DispatchKey.CompositeImplicitAutograd)


@contextmanager
def recurrent_layers_whole() -> Iterator[None]:
    """Compute the shapes of recurrent layers as one operator, not step by step; restore torch on leaving."""
    with ExitStack() as stack:
        for operator, kernel in SHAPE_KERNELS.items():
            stack.callback(operator._dispatch_cache.clear)
            stack.enter_context(patch.dict(operator.py_kernels, dict.fromkeys(DECOMPOSED_AT, kernel)))
            operator._dispatch_cache.clear()
        yield


@contextmanager
def without_shape_cache(symbolic: bool) -> Iterator[None]:
    """Export without torch's cache of symbolic shapes, which makes the export 1.3 to 1.8 times as fast."""
    if not symbolic:
        yield
        return
    from torch._dynamo import config as dynamo_config

    with dynamo_config.patch(fake_tensor_cache_enabled=False):
        yield


@contextmanager
def without_stack_traces() -> Iterator[None]:
    """Export without the stack trace of each operator."""
    with patch.object(fx_config, "do_not_emit_stack_traces", True, create=True):  # not in torch 2.11
        yield


MOST_SIZE_OPERATIONS = 40  # in one expression: convolutional networks come to 10, windowed attention to over 1,000


class SizesTooComplexError(RuntimeError):
    """The error for dynamic sizes whose expressions take torch minutes."""


@contextmanager
def short_size_expressions(is_limited: bool) -> Iterator[None]:
    """Abort an export if an expression of sizes has more than 40 operations.

    Padding to a multiple of a window, and taking it off again, doubles the expression of the height block by block.
    """
    if not is_limited:
        yield
        return
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    evaluate = ShapeEnv.evaluate_expr
    operations = cache(lambda expression: int(expression.count_ops()))  # most are asked about many times

    def evaluate_short(self: ShapeEnv, orig_expr: Any, *args: Any, **kwargs: Any) -> Any:
        if operations(orig_expr) > MOST_SIZE_OPERATIONS:
            raise SizesTooComplexError(f"a size is an expression of more than {MOST_SIZE_OPERATIONS} operations")
        return evaluate(self, orig_expr, *args, **kwargs)

    with patch.object(ShapeEnv, "evaluate_expr", evaluate_short):
        yield

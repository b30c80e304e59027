"""Shape computations of common operators in one step, for exports with symbolic shapes.

For a tensor without data, torch takes most operators apart into many smaller ones, each of which compares symbolic
lengths. For the operators here the shape of the result is plain. They take most of the time of an export with a batch
size that may vary: convolutions, norms, activations, linear layers, matrix products and interpolation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch._subclasses.fake_impls import get_fast_op_impls, op_implementations_dict

from secateur.graph.symbolic_lengths import has_adjacent_columns, is_dense_channels_last, is_product, is_same_length

Kernel = Callable[..., Any]
ATEN: Any = torch.ops.aten
BATCH_NORM = ATEN._native_batch_norm_legit_no_training.default
LAYER_NORM, GROUP_NORM = ATEN.native_layer_norm.default, ATEN.native_group_norm.default
CONVOLUTION = ATEN.convolution.default
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
COMPOSITE_KEYS = (torch._C.DispatchKey.Autograd, COMPOSITE)


def like_first(mode: Any, first: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return the result of an operator that keeps the shape and type of its first argument."""
    with mode:
        return torch.empty_like(first)


def first_itself(mode: Any, first: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return the result of an operator that writes to its first argument."""
    return first


def softmax_result(mode: Any, input: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """Return a tensor of the shape of a softmax."""
    with mode:
        dtype = torch.float32 if half_to_float else input.dtype
        return torch.empty_like(input, dtype=dtype, memory_format=torch.contiguous_format)


def batch_norm_results(mode: Any, input: Tensor, *parameters: Any) -> Any:
    """Return tensors of the shapes of a batch norm's output and the statistics that it hands on, which are empty."""
    if isinstance(input.shape[1], torch.SymInt):
        return _taken_apart(mode, BATCH_NORM, input, *parameters)
    with mode:
        return torch.empty_like(input), input.new_empty(0), input.new_empty(0)


def layer_norm_results(mode: Any, input: Tensor, normalized_shape: Sequence[Any], *parameters: Any) -> Any:
    """Return tensors of the shapes of a layer norm's output, means and reciprocal deviations."""
    outer = input.dim() - len(normalized_shape)
    if any(isinstance(length, torch.SymInt) for length in input.shape[outer:]):
        return _taken_apart(mode, LAYER_NORM, input, normalized_shape, *parameters)
    with mode:
        statistics = input.new_empty((*input.shape[:outer], *(1 for _ in normalized_shape)))
        return torch.empty_like(input, memory_format=torch.contiguous_format), statistics, statistics.clone()


def group_norm_results(
    mode: Any, input: Tensor, weight: Any, bias: Any, batch: Any, channels: Any, space: Any, groups: int, eps: float
) -> Any:
    """Return tensors of the shapes of a group norm's output, means and reciprocal deviations."""
    if isinstance(input.shape[1], torch.SymInt) or input.shape[1] % groups:
        return _taken_apart(mode, GROUP_NORM, input, weight, bias, batch, channels, space, groups, eps)
    with mode:
        statistics = input.new_empty((batch, groups))
        return torch.empty_like(input), statistics, statistics.clone()


def convolution_result(
    mode: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> Any:  # fmt: skip
    """Return a tensor of the shape of a convolution's output.

    Torch's own kernel serves transposed convolutions, memory in another order than the axes', and inputs that may be
    smaller than the kernel.
    """
    rank = weight.dim() - 2
    stride, padding, dilation = (list(v) * (rank if len(v) == 1 else 1) for v in (stride, padding, dilation))
    extents = [spread * (length - 1) + 1 for spread, length in zip(dilation, weight.shape[2:], strict=True)]
    spaces = list(zip(input.shape[2:], extents, stride, padding, strict=True)) if input.dim() == rank + 2 else []
    if (
        transposed or not spaces or not _is_convolution(input, weight, bias, groups)
        or any(length + 2 * pad < extent if isinstance(length, int) else 2 * pad < extent - 1
               for length, extent, _, pad in spaces)
    ):  # fmt: skip
        torchs: Kernel = op_implementations_dict[CONVOLUTION]
        return torchs(
            mode, CONVOLUTION, input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
        )
    lengths = [(length + 2 * pad - extent) // step + 1 for length, extent, step, pad in spaces]
    with mode:
        return input.new_empty((input.shape[0], weight.shape[0], *lengths))


def _is_convolution(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Return whether a convolution's tensors are known to fit, and to lie in memory in the order of their axes."""
    return (
        input.dtype == weight.dtype and input.device == weight.device and (bias is None or bias.dtype == input.dtype)
        and all(isinstance(length, int) for length in (*weight.shape, input.shape[1]))
        and input.shape[1] == weight.shape[1] * groups and (bias is None or bias.shape == weight.shape[:1])
        and has_adjacent_columns(input) and weight.is_contiguous()
    )  # fmt: skip


def _taken_apart(mode: Any, operator: OpOverload, *args: Any) -> Any:
    """Return the results of torch's own decomposition, which compares a symbolic length with a weight's."""
    with mode:
        return decomposition_table[operator](*args)


def linear_result(torchs: Kernel, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a tensor of the shape of a linear layer's output."""
    if input.dim() < 2 or weight.dim() != 2 or not is_product(input, weight, -1):
        result: Tensor = torchs(input, weight, bias)
        return result
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def matmul_result(torchs: Kernel, one: Tensor, other: Tensor) -> Tensor:
    """Return a tensor of the shape of a matrix product, for one matrix or as many on both sides."""
    is_batched_alike = other.dim() == 2 or (
        one.dim() == other.dim() and all(map(is_same_length, one.shape[:-2], other.shape[:-2]))
    )
    if one.dim() < 2 or other.dim() < 2 or not is_batched_alike or not is_product(one, other, -2):
        result: Tensor = torchs(one, other)
        return result
    return one.new_empty((*one.shape[:-1], other.shape[-1]))


def interpolated_result(torchs: Kernel, input: Tensor, output_size: Sequence[Any] | None, *options: Any) -> Tensor:
    """Return a tensor of the shape of an interpolation to a size that is given."""
    in_order = has_adjacent_columns(input)
    order = torch.contiguous_format if in_order else torch.channels_last
    is_known = in_order or (input.device.type == "cpu" and is_dense_channels_last(input))
    if output_size is None or len(output_size) != input.dim() - 2 or not is_known:
        result: Tensor = torchs(input, output_size, *options)
        return result
    return torch.empty((*input.shape[:2], *output_size), dtype=input.dtype, device=input.device, memory_format=order)


SAME_SHAPE_AND_TYPE = ("relu", "gelu", "silu", "hardswish", "hardsigmoid", "hardtanh")
WRITING = ("relu_", "silu_", "hardswish_", "hardsigmoid_", "hardtanh_")
# For operators that torch runs on tensors without data; asked only where a length is symbolic.
SYMBOLIC_KERNELS: dict[OpOverload, Kernel] = {
    BATCH_NORM: batch_norm_results,
    LAYER_NORM: layer_norm_results,
    GROUP_NORM: group_norm_results,
    CONVOLUTION: convolution_result,
    ATEN._softmax.default: softmax_result,
    **{getattr(ATEN, name).default: like_first for name in SAME_SHAPE_AND_TYPE},
    **{getattr(ATEN, name).default: first_itself for name in WRITING},
}
# For operators that torch would take apart before; each is given torch's own way first.
WHOLE_KERNELS: dict[OpOverload, Kernel] = {
    ATEN.linear.default: linear_result,
    ATEN.matmul.default: matmul_result,
    ATEN.upsample_bilinear2d.vec: interpolated_result,
    ATEN.upsample_nearest2d.vec: interpolated_result,
}


@contextmanager
def shapes_at_once(symbolic: bool) -> Iterator[None]:
    """Export with the kernels of this file where lengths are symbolic; restore torch on leaving."""
    if not symbolic:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(patch.dict(get_fast_op_impls(), SYMBOLIC_KERNELS))
        for operator, kernel in WHOLE_KERNELS.items():
            torchs = operator.py_kernels.get(COMPOSITE) or partial(operator._op_dk, COMPOSITE)
            stack.callback(operator._dispatch_cache.clear)
            stack.enter_context(patch.dict(operator.py_kernels, dict.fromkeys(COMPOSITE_KEYS, partial(kernel, torchs))))
            operator._dispatch_cache.clear()
        yield

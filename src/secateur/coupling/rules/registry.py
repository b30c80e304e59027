"""One table: operator -> how labels pass it. An operator that isn't here freezes what it touches."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.coupling.connected_components import find_components
from secateur.coupling.label_tracer import LabelTracer, Weight, squeeze_expanded
from secateur.coupling.rules import (
    conv,
    elementwise,
    fft,
    indexing,
    matmul,
    moe,
    recurrent,
    reduction,
    scatter,
    shape_ops,
)
from secateur.coupling.rules.context import OpContext, frozen, tensors
from secateur.coupling.shape_literals import shape_literals_of
from secateur.graph.operators import arguments, module_path, operator_name
from secateur.graph.program import Program

Rule = Callable[[OpContext], Any]


def unknown(call: OpContext) -> Any:
    """Freezes what it touches."""
    for labels in tensors(call.args):
        call.freeze(labels, "there is no rule for this operator")
    return call.frozen()


def failed(call: OpContext, failure: Exception) -> Any:
    """Freezes what it touches, and says which rule failed."""
    for labels in tensors(call.args):
        call.freeze(labels, f"its rule does not know these arguments ({type(failure).__name__}: {failure})")
    return call.frozen()


def _table(rules: Mapping[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


RULES = _table(
    {
        matmul.linear: "linear",
        matmul.matmul: "matmul mm bmm addmm",
        conv.convolution: "conv1d conv2d conv3d",
        conv.transposed_convolution: "conv_transpose1d conv_transpose2d conv_transpose3d",
        matmul.attention: "scaled_dot_product_attention",
        matmul.embedding: "embedding",
        matmul.embedding_bag: "embedding_bag",
        matmul.pairwise_distance: "cdist",
        matmul.bilinear: "bilinear",
        moe.grouped_matmul: "_grouped_mm grouped_mm_fallback",
        recurrent.recurrent: "lstm gru rnn_tanh rnn_relu",
        recurrent.cell: "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
        reduction.batch_norm: "batch_norm _native_batch_norm_legit_no_training instance_norm",
        reduction.layer_norm: "layer_norm rms_norm",
        reduction.group_norm: "group_norm",
        elementwise.dropout: "dropout dropout_ feature_dropout alpha_dropout",
        # Copies, casts, and constants of the same shape.
        elementwise.passing: "to type_as contiguous clone detach lift_fresh_copy alias _to_copy fill zero "
        "zeros_like ones_like full_like empty_like rand_like randn_like randint_like bernoulli uniform exponential "
        "geometric log_normal cauchy normal_functional poisson",
        elementwise.overwritten: "copy",
        elementwise.created: "zeros ones full empty new_zeros new_ones new_full new_empty rand randn randint",
        # Elementwise operators that torch does not tag as such.
        elementwise.elementwise: "hardswish log_sigmoid where rsub native_dropout __and__ __or__ real imag _conj "
        "normal resolve_conj resolve_neg complex polar",
        elementwise.broadcast: "broadcast_tensors",
        elementwise.prelu: "prelu",
        reduction.softmax: "softmax log_softmax _softmax _log_softmax",
        reduction.summation: "mean sum var std var_mean std_mean linalg_vector_norm norm",
        reduction.reduction: "amax amin max min argmax argmin any all logsumexp prod",
        reduction.spatial: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
        "upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa max_pool1d_with_indices "
        "max_pool2d_with_indices max_pool3d_with_indices",
        reduction.unpool: "max_unpool2d max_unpool3d",
        shape_ops.move: "permute transpose t unsqueeze squeeze movedim moveaxis swapaxes flip adjoint numpy_T mT",
        shape_ops.reshape: "view reshape flatten unflatten _unsafe_view view_as reshape_as",
        shape_ops.expand: "expand expand_as broadcast_to",
        shape_ops.fixed_positions: "roll unfold index_select diagonal",
        shape_ops.select: "select",
        shape_ops.parts: "chunk split split_with_sizes unbind tensor_split unsafe_chunk unsafe_split",
        shape_ops.slice_: "slice narrow",
        shape_ops.concatenate: "cat concat concatenate stack",
        shape_ops.pad: "pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d",
        shape_ops.repeat: "repeat",
        shape_ops.gated: "glu",
        shape_ops.pixel_shuffle: "pixel_shuffle",
        shape_ops.pixel_unshuffle: "pixel_unshuffle",
        shape_ops.channel_shuffle: "channel_shuffle native_channel_shuffle",
        shape_ops.patches: "im2col",
        shape_ops.from_patches: "col2im",
        shape_ops.indexed: "index",
        indexing.gather: "gather",
        indexing.choice: "topk",
        indexing.scan: "cumsum cumprod logcumsumexp cummax cummin sort argsort",
        indexing.triangle: "tril triu",
        indexing.repeat_interleave: "repeat_interleave",
        indexing.scatter_part: "select_scatter slice_scatter",
        scatter.index_written: "index_add index_copy index_reduce index_fill",
        scatter.scattered: "scatter scatter_add scatter_reduce",
        scatter.index_put: "index_put",
        fft.transformed: "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 "
        "fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift _fft_c2c _fft_r2c _fft_c2r",
        fft.as_pairs: "view_as_real",
        fft.as_complex: "view_as_complex",
        indexing.grid_sample: "grid_sampler grid_sampler_2d grid_sampler_3d",
    }
)


# Operators of other libraries than torch that have a rule.
OF_OTHERS = {"grouped_mm_fallback"}


def find_rule(node: Node) -> Rule:
    """The rule of an operator: from the table, else by torch's own tag for elementwise operators, else `unknown`."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return unknown
    name = operator_name(node)
    if name in RULES and (target.namespace == "aten" or name in OF_OTHERS):
        return RULES[name]
    if target.namespace != "aten":
        return unknown
    packet = target.overloadpacket
    pointwise = any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
    return elementwise.elementwise if pointwise else unknown


def trace_labels(program: Program, shapes: Mapping[Node, Any], by_width: bool = False) -> LabelTracer:
    """Walk through the program on labels; where there are heads once more, knowing what each holds together.

    Args:
        program: the program.
        shapes: for every operator, its result on the example with `torch.Size` in place of tensors.
        by_width: units of attention are the same places of all heads, in place of heads.
    """
    trace = _walk(program, shapes, LabelTracer(by_width=by_width))
    if not trace.within_heads:
        return trace
    component = torch.from_numpy(find_components(trace.within_heads, trace.size))
    first = torch.full((int(component.max()) + 1,), trace.size).scatter_reduce(
        0, component, torch.arange(trace.size), "amin"
    )
    return _walk(program, shapes, LabelTracer(first[component]))


def trace_experts(program: Program, shapes: Mapping[Node, Any], first: LabelTracer) -> LabelTracer | None:
    """Walk once more with labels for experts alone: axes as long as the stacks of weights that were met.

    What is chosen by size decides which weights of the stack are used, though nothing flows from one to the other: they
    are tied where they lie in one module.
    """
    lengths = frozenset(weight.shape[0] for _, weight, _ in first.stacks)
    if not lengths:
        return None
    trace = _walk(program, shapes, LabelTracer(stacked=lengths))
    for node, labels, _ in trace.choices:
        place = module_path(node).rpartition(".")[0]
        for product, weight, _ in trace.stacks:
            if module_path(product).startswith(place) and weight.shape[0] == len(labels):
                trace.tie(trace.along(weight, 0, product), labels, product)
    return trace


def _walk(program: Program, shapes: Mapping[Node, Any], trace: LabelTracer) -> LabelTracer:
    weights = {name: trace.weight(name, program.state(name).shape) for name in program.state_names.values()}
    labels: dict[Node, Any] = {}
    for node in program.nodes[:-1]:
        if node.op == "placeholder":
            name = program.state_names.get(node)
            labels[node] = weights[name] if name else frozen(shapes[node])
        elif node.op == "call_function":
            labels[node] = _step(program, trace, node, labels, shapes)
        for used in node.all_input_nodes:
            if program.last_use[used] <= program.position[node]:
                labels.pop(used, None)
    for node in program.output_nodes:
        for value in tensors(labels[node]):
            trace.freeze(value, node, "is the network's output")
    return trace


def _step(program: Program, trace: LabelTracer, node: Node, labels: dict[Node, Any], shapes: Mapping[Node, Any]) -> Any:
    if node.target is operator.getitem:
        return labels[node.args[0]][node.args[1]]  # type: ignore[index]
    if not any(isinstance(leaf, torch.Size) for leaf in pytree.tree_leaves(shapes[node], is_leaf=_is_shape)):
        return shapes[node]
    given = arguments(node)
    args = torch.fx.map_arg(given, lambda used: labels.get(used))
    call = OpContext(node, trace, dict(args), shapes[node])
    try:
        result = find_rule(node)(call)
    except Exception as failure:  # noqa: BLE001 (a case that a rule does not know must not end the trace)
        result = failed(call, failure)
    trace.sizes.extend(shape_literals_of(call, result))
    if node in program.draws:
        drawn = next(iter(tensors(result)), None)
        layers = () if drawn is None else drawn.layers if isinstance(drawn, Weight) else (drawn,)
        trace.draws.append((node, tuple(squeeze_expanded(labels) for labels in layers)))
    return result


def _is_shape(value: Any) -> bool:
    return isinstance(value, torch.Size)


def shapes_of(value: Any) -> Any:
    """A result with `torch.Size` in place of tensors."""
    return pytree.tree_map(lambda leaf: leaf.shape if isinstance(leaf, Tensor) else leaf, value)

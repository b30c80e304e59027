"""One table: operator -> how labels pass it. An operator that isn't here freezes what it touches."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.network import (
    contractions,
    convolutions,
    elementwise,
    experts,
    movements,
    picking,
    recurrent,
    reductions,
    scattering,
    spectral,
)
from secateur.network.call import Call, frozen, tensors
from secateur.network.labels import Trace, Weight, compact, operator_name
from secateur.network.program import Program, arguments, module_path
from secateur.network.sizes import sizes_of
from secateur.network.ties import connected

Rule = Callable[[Call], Any]


def unknown(call: Call) -> Any:
    """Freezes what it touches."""
    for labels in tensors(call.args):
        call.freeze(labels, "there is no rule for this operator")
    return call.frozen()


def failed(call: Call, failure: Exception) -> Any:
    """Freezes what it touches, and says which rule failed."""
    for labels in tensors(call.args):
        call.freeze(labels, f"its rule does not know these arguments ({type(failure).__name__}: {failure})")
    return call.frozen()


def _table(rules: Mapping[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


RULES = _table(
    {
        contractions.linear: "linear",
        contractions.matmul: "matmul mm bmm addmm",
        convolutions.convolution: "conv1d conv2d conv3d",
        convolutions.transposed_convolution: "conv_transpose1d conv_transpose2d conv_transpose3d",
        contractions.attention: "scaled_dot_product_attention",
        contractions.embedding: "embedding",
        contractions.embedding_bag: "embedding_bag",
        contractions.distances: "cdist",
        contractions.bilinear: "bilinear",
        experts.grouped_product: "_grouped_mm grouped_mm_fallback",
        recurrent.recurrent: "lstm gru rnn_tanh rnn_relu",
        recurrent.cell: "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
        reductions.batch_norm: "batch_norm _native_batch_norm_legit_no_training instance_norm",
        reductions.layer_norm: "layer_norm rms_norm",
        reductions.group_norm: "group_norm",
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
        reductions.softmax: "softmax log_softmax _softmax _log_softmax",
        reductions.summation: "mean sum var std var_mean std_mean linalg_vector_norm norm",
        reductions.reduction: "amax amin max min argmax argmin any all logsumexp prod",
        reductions.spatial: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
        "upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa max_pool1d_with_indices "
        "max_pool2d_with_indices max_pool3d_with_indices",
        reductions.unpool: "max_unpool2d max_unpool3d",
        movements.move: "permute transpose t unsqueeze squeeze movedim moveaxis swapaxes flip adjoint numpy_T mT",
        movements.reshape: "view reshape flatten unflatten _unsafe_view view_as reshape_as",
        movements.expand: "expand expand_as broadcast_to",
        movements.fixed_positions: "roll unfold index_select diagonal",
        movements.select: "select",
        movements.parts: "chunk split split_with_sizes unbind tensor_split unsafe_chunk unsafe_split",
        movements.slice_: "slice narrow",
        movements.concatenate: "cat concat concatenate stack",
        movements.pad: "pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d",
        movements.repeat: "repeat",
        movements.gated: "glu",
        movements.pixel_shuffle: "pixel_shuffle",
        movements.pixel_unshuffle: "pixel_unshuffle",
        movements.channel_shuffle: "channel_shuffle native_channel_shuffle",
        movements.patches: "im2col",
        movements.from_patches: "col2im",
        movements.indexed: "index",
        picking.gather: "gather",
        picking.choice: "topk",
        picking.scan: "cumsum cumprod logcumsumexp cummax cummin sort argsort",
        picking.triangle: "tril triu",
        picking.repeat_interleave: "repeat_interleave",
        picking.scatter_part: "select_scatter slice_scatter",
        scattering.index_written: "index_add index_copy index_reduce index_fill",
        scattering.scattered: "scatter scatter_add scatter_reduce",
        scattering.index_put: "index_put",
        spectral.transformed: "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 "
        "fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift _fft_c2c _fft_r2c _fft_c2r",
        spectral.as_pairs: "view_as_real",
        spectral.as_complex: "view_as_complex",
        picking.grid_sample: "grid_sampler grid_sampler_2d grid_sampler_3d",
    }
)


# Operators of other libraries than torch that have a rule.
OF_OTHERS = {"grouped_mm_fallback"}


def rule_for(node: Node) -> Rule:
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


def trace_labels(program: Program, shapes: Mapping[Node, Any], by_width: bool = False) -> Trace:
    """Walk through the program on labels; where there are heads once more, knowing what each holds together.

    Args:
        program: the program.
        shapes: for every operator, its result on the example with `torch.Size` in place of tensors.
        by_width: units of attention are the same places of all heads, in place of heads.
    """
    trace = _walk(program, shapes, Trace(by_width=by_width))
    if not trace.within_heads:
        return trace
    component = torch.from_numpy(connected(trace.within_heads, trace.size))
    first = torch.full((int(component.max()) + 1,), trace.size).scatter_reduce(
        0, component, torch.arange(trace.size), "amin"
    )
    return _walk(program, shapes, Trace(first[component]))


def trace_experts(program: Program, shapes: Mapping[Node, Any], first: Trace) -> Trace | None:
    """Walk once more with labels for experts alone: axes as long as the stacks of weights that were met.

    What is chosen by size decides which weights of the stack are used, though nothing flows from one to the other: they
    are tied where they lie in one module.
    """
    lengths = frozenset(weight.shape[0] for _, weight, _ in first.stacks)
    if not lengths:
        return None
    trace = _walk(program, shapes, Trace(stacked=lengths))
    for node, labels, _ in trace.choices:
        place = module_path(node).rpartition(".")[0]
        for product, weight, _ in trace.stacks:
            if module_path(product).startswith(place) and weight.shape[0] == len(labels):
                trace.tie(trace.along(weight, 0, product), labels, product)
    return trace


def _walk(program: Program, shapes: Mapping[Node, Any], trace: Trace) -> Trace:
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


def _step(program: Program, trace: Trace, node: Node, labels: dict[Node, Any], shapes: Mapping[Node, Any]) -> Any:
    if node.target is operator.getitem:
        return labels[node.args[0]][node.args[1]]  # type: ignore[index]
    if not any(isinstance(leaf, torch.Size) for leaf in pytree.tree_leaves(shapes[node], is_leaf=_is_shape)):
        return shapes[node]
    given = arguments(node)
    args = torch.fx.map_arg(given, lambda used: labels.get(used))
    call = Call(node, trace, dict(args), shapes[node])
    try:
        result = rule_for(node)(call)
    except Exception as failure:  # noqa: BLE001 (a case that a rule does not know must not end the trace)
        result = failed(call, failure)
    trace.sizes.extend(sizes_of(call, result))
    if node in program.draws:
        drawn = next(iter(tensors(result)), None)
        layers = () if drawn is None else drawn.layers if isinstance(drawn, Weight) else (drawn,)
        trace.draws.append((node, tuple(compact(labels) for labels in layers)))
    return result


def _is_shape(value: Any) -> bool:
    return isinstance(value, torch.Size)


def shapes_of(value: Any) -> Any:
    """A result with `torch.Size` in place of tensors."""
    return pytree.tree_map(lambda leaf: leaf.shape if isinstance(leaf, Tensor) else leaf, value)

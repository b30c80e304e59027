"""How labels pass recurrent layers and cells: a hidden unit owns its rows of every gate."""

import math
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels, Weight, broadcast_labels
from secateur.coupling.rules.context import OpContext, tensors
from secateur.graph.operators import operator_name

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1, "lstm_cell": 4, "gru_cell": 3} | dict.fromkeys(
    ("rnn_tanh_cell", "rnn_relu_cell"), 1
)


def recurrent(call: OpContext) -> Any:
    """Several layers, one or both directions; one unit is the same place of every layer's state, which they share."""
    params = call.args.get("params")
    layers, directions = call.args.get("num_layers", 0), 2 if call.args.get("bidirectional") else 1
    per_cell = 4 if call.args.get("has_biases") else 2
    if params is None or len(params) != layers * directions * per_cell:
        return _frozen_results(call, "packed sequences and projections are not traced through")
    cells = [params[at : at + per_cell] for at in range(0, len(params), per_cell)]
    hidden = call.trace.along(cells[0][1], 1, call.node)
    for cell in cells:
        call.tie(call.trace.along(cell[1], 1, call.node), hidden)
        _tie_gates(call, cell, hidden)
    for state in _states(call):
        call.tie(call.trace.along(state, -1, call.node), hidden)
    read = call.along("input", -1)
    steps = math.prod(call.args["input"].shape[:-1])
    for at, (w_ih, *_) in enumerate(cells):
        inputs = read if at < directions else hidden.repeat(directions)
        owned = call.trace.along(w_ih, 1, call.node)
        call.tie(owned, inputs)
        rows = hidden.repeat(GATES[operator_name(call.node)])
        call.trace.count(call.node, steps, rows, owned)
        call.trace.count(call.node, steps, rows, hidden)
    call.trace.read(call.node, "input", call.args["input"].dim() - 1, read)
    call.trace.read(call.node, "params", 1, hidden)
    outputs = broadcast_labels(hidden.repeat(directions), len(call.shape[0]) - 1, call.shape[0])
    return (outputs, *(broadcast_labels(hidden, len(shape) - 1, shape) for shape in call.shape[1:]))


def cell(call: OpContext) -> Any:
    """One step of a recurrent layer."""
    w_ih, w_hh = call.args["w_ih"], call.args["w_hh"]
    if not isinstance(w_ih, Weight) or not isinstance(w_hh, Weight):
        return _frozen_results(call, "its weight is computed from other tensors")
    hidden = call.trace.along(w_hh, 1, call.node)
    biases = [call.args[name] for name in ("b_ih", "b_hh") if call.args.get(name) is not None]
    _tie_gates(call, [w_ih, w_hh, *biases], hidden)
    for state in _states(call):
        call.tie(call.trace.along(state, -1, call.node), hidden)
    read, owned = call.along("input", -1), call.trace.along(w_ih, 1, call.node)
    call.tie(owned, read)
    steps = math.prod(call.args["input"].shape[:-1])
    rows = hidden.repeat(GATES[operator_name(call.node)])
    call.trace.count(call.node, steps, rows, owned)
    call.trace.count(call.node, steps, rows, hidden)
    call.trace.read(call.node, "input", call.args["input"].dim() - 1, read)
    call.trace.read(call.node, "w_hh", 1, hidden)
    if isinstance(call.shape, torch.Size):
        return broadcast_labels(hidden, len(call.shape) - 1, call.shape)
    return tuple(broadcast_labels(hidden, len(shape) - 1, shape) for shape in call.shape)


def _tie_gates(call: OpContext, parameters: Any, hidden: Tensor) -> None:
    """The rows of every gate go with the units whose gates they are."""
    for tensor in parameters:
        rows = call.trace.along(tensor, 0, call.node, produces=True)
        call.tie(rows, hidden.repeat(GATES[operator_name(call.node)]))


def _states(call: OpContext) -> list[Labels]:
    states = call.args["hx"]
    return list(states) if isinstance(states, list | tuple) else [states]


def _frozen_results(call: OpContext, reason: str) -> Any:
    for value in tensors(call.args):
        call.freeze(value, reason)
    return call.frozen()

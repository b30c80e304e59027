"""Label rules of recurrent layers and cells: a hidden unit owns its rows of every gate."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.labels import Labels, Weight, broadcast_labels
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.layer_units import COMPUTED_WEIGHT
from secateur.coupling.rules.module_attributes import recurrent_attributes
from secateur.coupling.rules.op_rule import LabelRule, OpRule, Recurrence, RuleTable


def recurrent_layers(gates: int) -> LabelRule:
    """Return the rule of several layers, in one or both directions, with a number of gates.

    One unit is the same position of every layer's state, which all layers share.
    """

    def label(op: OpContext) -> Any:
        weights = op.args.get("params")
        layers, directions = op.args.get("num_layers", 0), 2 if op.args.get("bidirectional") else 1
        per_cell = 4 if op.args.get("has_biases") else 2
        if weights is None or len(weights) != layers * directions * per_cell:
            return freeze_arguments(op, "packed sequences and projections are not traced through")
        cells = [weights[at : at + per_cell] for at in range(0, len(weights), per_cell)]
        hidden_labels = op.axis_labels(cells[0][1], 1)
        for cell in cells:
            op.couple(op.axis_labels(cell[1], 1), hidden_labels)
            _couple_gates(op, cell, hidden_labels, gates)
        for state in _states(op):
            op.couple(op.axis_labels(state, -1), hidden_labels)
        _couple_inputs(op, cells, hidden_labels, gates, directions)
        outputs = broadcast_labels(hidden_labels.repeat(directions), len(op.shape[0]) - 1, op.shape[0])
        return (outputs, *(broadcast_labels(hidden_labels, len(shape) - 1, shape) for shape in op.shape[1:]))

    return label


def _couple_inputs(op: OpContext, cells: Sequence[Any], hidden_labels: Tensor, gates: int, directions: int) -> None:
    """Couple the inputs of every layer with the columns of its weights, and count the MACs.

    Args:
        op: the operator.
        cells: the parameters of each layer and direction, one after another.
        hidden_labels: the labels of the hidden units.
        gates: the number of gates.
        directions: 2 for a bidirectional layer, otherwise 1.
    """
    input_labels = op.axis_labels("input", -1)
    steps = math.prod(op.args["input"].shape[:-1])
    for at, (input_weight, *_) in enumerate(cells):
        inputs = op.axis_labels(input_weight, 1)
        op.couple(inputs, input_labels if at < directions else hidden_labels.repeat(directions))
        op.count(steps, hidden_labels.repeat(gates), inputs)
        op.count(steps, hidden_labels.repeat(gates), hidden_labels)
    op.read("input", op.args["input"].dim() - 1, input_labels)
    op.read("params", 1, hidden_labels)


def recurrent_cell(gates: int) -> LabelRule:
    """Return the rule of one step of a recurrent layer with a number of gates."""

    def label(op: OpContext) -> Any:
        input_weight, hidden_weight = op.args["w_ih"], op.args["w_hh"]
        if not isinstance(input_weight, Weight) or not isinstance(hidden_weight, Weight):
            return freeze_arguments(op, COMPUTED_WEIGHT)
        hidden_labels = op.axis_labels(hidden_weight, 1)
        biases = [op.args[name] for name in ("b_ih", "b_hh") if op.args.get(name) is not None]
        _couple_gates(op, [input_weight, hidden_weight, *biases], hidden_labels, gates)
        for state in _states(op):
            op.couple(op.axis_labels(state, -1), hidden_labels)
        input_labels, inputs = op.axis_labels("input", -1), op.axis_labels(input_weight, 1)
        op.couple(inputs, input_labels)
        steps = math.prod(op.args["input"].shape[:-1])
        op.count(steps, hidden_labels.repeat(gates), inputs)
        op.count(steps, hidden_labels.repeat(gates), hidden_labels)
        op.read("input", op.args["input"].dim() - 1, input_labels)
        op.read("w_hh", 1, hidden_labels)
        if isinstance(op.shape, torch.Size):
            return op.broadcast(hidden_labels, len(op.shape) - 1)
        return tuple(broadcast_labels(hidden_labels, len(shape) - 1, shape) for shape in op.shape)

    return label


def _couple_gates(op: OpContext, parameters: Any, hidden_labels: Tensor, gates: int) -> None:
    """Couple the rows of every gate with the units that they are gates of."""
    for tensor in parameters:
        op.couple(op.axis_labels(tensor, 0, produces=True), hidden_labels.repeat(gates))


def _states(op: OpContext) -> list[Labels]:
    states = op.args["hx"]
    return list(states) if isinstance(states, list | tuple) else [states]


def _layer_rule(gates: int) -> OpRule:
    return OpRule(
        recurrent_layers(gates),
        recurrence=Recurrence(gates, "params"),
        attributes={nn.RNNBase: recurrent_attributes},
    )


def _cell_rule(gates: int) -> OpRule:
    return OpRule(
        recurrent_cell(gates),
        recurrence=Recurrence(gates, "w_hh"),
        attributes={nn.RNNCellBase: recurrent_attributes},
    )


RULES: RuleTable = {
    "lstm": _layer_rule(4),
    "gru": _layer_rule(3),
    "rnn_tanh rnn_relu": _layer_rule(1),
    "lstm_cell": _cell_rule(4),
    "gru_cell": _cell_rule(3),
    "rnn_tanh_cell rnn_relu_cell": _cell_rule(1),
}

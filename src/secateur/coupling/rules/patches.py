"""Label rules of operators that turn channels into pixels or windows, and the other way round."""

from torch import Tensor

from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.op_rule import OpRule, RuleTable


def pixel_shuffle(op: OpContext) -> Tensor:
    """Couple the channels that become one channel's pixels."""
    channels = op.axis_labels(op.activation("self"), -3)
    rows = channels.view(op.shape[-3], -1)
    op.couple(rows, rows[:, :1])
    return op.broadcast(rows[:, 0], -3)


def pixel_unshuffle(op: OpContext) -> Tensor:
    """Give the channels that one channel's pixels become the label of that channel."""
    channels = op.axis_labels(op.activation("self"), -3)
    return op.broadcast(channels.repeat_interleave(op.shape[-3] // len(channels)), -3)


def channel_shuffle(op: OpContext) -> Tensor:
    """Couple the same position of every group, so that groups remain equal."""
    channels = op.axis_labels(op.activation("self"), 1)
    rows = channels.view(op.args["groups"], -1)
    op.couple(rows, rows[:1])
    return op.broadcast(rows.t().reshape(-1), 1)


def unfold_windows(op: OpContext) -> Tensor:
    """Give the rows that one channel's window becomes (`unfold`) the label of that channel."""
    channels = op.axis_labels(op.activation("self"), 1)
    return op.broadcast(channels.repeat_interleave(op.shape[1] // len(channels)), 1)


def fold_windows(op: OpContext) -> Tensor:
    """Couple the rows of one channel's window (`fold`)."""
    channels = op.axis_labels(op.activation("self"), 1)
    rows = channels.view(op.shape[1], -1)
    op.couple(rows, rows[:, :1])
    return op.broadcast(rows[:, 0], 1)


RULES: RuleTable = {
    "pixel_shuffle": OpRule(pixel_shuffle, channels="move"),
    "pixel_unshuffle": OpRule(pixel_unshuffle),
    "channel_shuffle native_channel_shuffle": OpRule(channel_shuffle, channels="move"),
    "im2col": OpRule(unfold_windows),
    "col2im": OpRule(fold_windows),
}

"""Label rules of Fourier transforms, and of views of complex numbers as pairs."""

from torch import Tensor

from secateur.coupling.labels import Labels, frozen_labels
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import expand_labels, map_labels, narrow_axes
from secateur.coupling.rules.reduction import couple_along


def transform(op: OpContext) -> Labels:
    """Freeze units along the axes of a transform, which mixes all entries there; elsewhere they pass."""
    value = op.args["self"]
    dims = op.args.get("dim")
    last = range(len(value.shape) - len(op.args["s"]), len(value.shape)) if op.args.get("s") else None
    axes = [dims] if isinstance(dims, int) else dims or last or range(len(value.shape))
    transformed_axes = {axis % len(value.shape) for axis in axes}
    return expand_labels(narrow_axes(op, value, transformed_axes, "is transformed along these units"), op.shape)


def as_pairs(op: OpContext) -> Labels:
    """Give the two parts of a number (`view_as_real`) the label of the number."""
    pairs: Labels = map_labels(op.args["self"], lambda labels: labels.unsqueeze(-1).expand(op.shape))
    return pairs


def as_complex(op: OpContext) -> Labels:
    """Couple the two parts of a number (`view_as_complex`)."""
    value = op.args["self"]
    last = len(value.shape) - 1
    if isinstance(value, Tensor):
        coupled_labels = couple_along(op, value, {last}, "are the two parts of a number")
        value = frozen_labels(value.shape) if coupled_labels is None else coupled_labels
    narrow_labels = narrow_axes(op, value, {last}, "are the two parts of a number")
    numbers: Labels = map_labels(narrow_labels, lambda labels: labels.squeeze(-1))
    return numbers


RULES: RuleTable = {
    "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn "
    "fft_rfftn fft_irfftn fft_fftshift fft_ifftshift _fft_c2c _fft_r2c _fft_c2r": OpRule(transform),
    "view_as_real": OpRule(as_pairs),
    "view_as_complex": OpRule(as_complex),
}

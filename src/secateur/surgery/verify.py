"""Comparison of a cut model with the masked run."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.coupling.network import Kept, Network
from secateur.data.batch import Batch
from secateur.errors import SecateurError, SurgeryError, TraceError
from secateur.graph.contexts import isolated_evaluation, run_seeded
from secateur.graph.model_calls import call_model
from secateur.masking.ablation import Means, masked_draws, run_masked
from secateur.utils.devices import comparable_arithmetic
from secateur.utils.failure_text import failure_text

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def output_difference(output: Any, expected: Any, lowest: torch.dtype | None = None) -> tuple[float, float]:
    """Return the largest difference between two outputs, relative to the largest entry, and the tolerance.

    Args:
        output: the output to check.
        expected: the output to compare with.
        lowest: the floating-point type of least precision that was computed in, where the outputs have more.

    Raises:
        SurgeryError: the outputs have different shapes or a different number of tensors.
    """
    pairs = list(zip(_output_tensors(output), _output_tensors(expected), strict=False))
    if len(_output_tensors(output)) != len(_output_tensors(expected)) or any(a.shape != b.shape for a, b in pairs):
        shapes = [[tuple(t.shape) for t in _output_tensors(value)] for value in (output, expected)]
        raise SurgeryError(f"the cut model returns shapes {shapes[0]} where the dense one returns {shapes[1]}")
    worst, tolerance_of_type = 0.0, 0.0 if lowest is None else _tolerance(lowest)
    tolerance = tolerance_of_type
    for a, b in pairs:
        if not (b.is_floating_point() or b.is_complex()):
            continue
        infinite = ~torch.isfinite(b)
        if not bool((~torch.isfinite(a) == infinite).all()) or not _are_same(a[infinite], b[infinite]):
            return float("inf"), max(tolerance_of_type, _tolerance(b.dtype))
        scale = max(_largest_magnitude(b.masked_fill(infinite, 0)), 1e-6)
        gap = _largest_magnitude((a - b).masked_fill_(infinite, 0)) / scale
        worst, tolerance = max(worst, gap), max(tolerance, _tolerance(b.dtype))
    return worst, tolerance


def _are_same(values: Tensor, expected: Tensor) -> bool:
    """Return whether entries are the same infinities, and NaN where NaN is expected."""
    return bool(((values == expected) | (values.isnan() & expected.isnan())).all())


def _largest_magnitude(values: Tensor) -> float:
    """Return the largest absolute value; zero where there is none."""
    return float(torch.linalg.vector_norm(values, torch.inf)) if values.numel() else 0.0


def _tolerance(kind: torch.dtype) -> float:
    return TOLERANCE.get(kind.to_real(), 1e-4)


def _output_tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@comparable_arithmetic()
def verify(small: nn.Module, network: Network, kept: Kept, means: Means) -> float:
    """Run a cut model on the network's example and compare it with the masked run.

    Returns:
        The largest difference, relative to the largest output.

    Raises:
        SurgeryError: the cut model can't be run, or its output is another.
    """
    batch = network.example
    with isolated_evaluation(small, network.program.writes), torch.random.fork_rng(devices=[]):
        mask = network.mask(kept)
        expected_output = run_masked(network, batch, mask, means)
        try:
            with masked_draws(network, batch, mask, means):
                output = call_model(small, batch)
        except Exception as failure:  # the model's own code may raise anything
            raise SurgeryError(f"the cut {type(small).__name__} can't be run: {failure_text(failure)}") from failure
    return compare_outputs(output, expected_output, type(small).__name__, network.program.lowest_type)


def compare_outputs(output: Any, expected: Any, title: str, lowest: torch.dtype | None = None) -> float:
    """Return the largest difference between a cut model's output and the masked run's, relative to the largest output.

    Raises:
        SurgeryError: it is more than float noise.
    """
    worst, tolerance = output_difference(output, expected, lowest)
    if not worst <= tolerance:
        raise SurgeryError(
            f"the cut {title} differs from the masked run by {worst:.1e} of its largest output, where "
            f"{tolerance:.0e} is float noise; please report this network"
        )
    return worst


@comparable_arithmetic()
def check_same(model: nn.Module, plain_model: nn.Module, batch: Batch) -> None:
    """Check that two outputs agree.

    Raises:
        TraceError: a model with its computed weights folded is not the same any more.
    """
    with isolated_evaluation(model), isolated_evaluation(plain_model), torch.random.fork_rng(devices=[]):
        expected_output = run_seeded(model, batch)
        try:
            compare_outputs(run_seeded(plain_model, batch), expected_output, type(model).__name__)
        except SecateurError as failure:
            raise TraceError(
                f"{type(model).__name__} looks at its own parametrizations, and is another network without them; "
                f"remove them first (torch.nn.utils.parametrize.remove_parametrizations): {failure}"
            ) from failure

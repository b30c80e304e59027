"""Signs and constants that no law would notice: small cases whose exact numbers are known."""

from types import SimpleNamespace

import pytest
import torch

from secateur.errors import SurgeryError
from secateur.importance.shrinkage import ShrunkCovariance
from secateur.report.text import _fraction
from secateur.surgery.verify import compare_outputs


@pytest.mark.parametrize(("rows", "share"), [(10, 46 / 46), (100, 115 / 502.5), (10_000, 115 / (10_000.5 * 5))])
def test_covariances_shrink_as_chen_et_al_say(rows: int, share: float) -> None:
    """Equation 23 for S = diag(1, 2, 3, 4): tr(S S) = 30, tr(S) = 10, p = 4."""
    covariance = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    expected = (1 - share) * covariance + share * 2.5 * torch.eye(4, dtype=torch.float64)
    assert torch.allclose(ShrunkCovariance.of(covariance[None], rows).dense()[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dense", "pruned", "change"), [(0.9, 0.85, "-5.00 points"), (0.85, 0.9, "+5.00 points")])
def test_a_loss_of_accuracy_has_a_minus_sign(dense: float, pruned: float, change: str) -> None:
    assert _fraction(SimpleNamespace(changes={}), "accuracy", "accuracy", dense, pruned)[-1] == change


@pytest.mark.parametrize(
    ("dtype", "noise", "error"),
    [
        (torch.float64, 2e-9, 1e-7),
        (torch.float32, 2e-5, 5e-4),
        (torch.float16, 5e-3, 5e-2),
        (torch.bfloat16, 1e-2, 0.2),
    ],
)
def test_float_noise_passes_and_errors_do_not(dtype: torch.dtype, noise: float, error: float) -> None:
    expected = torch.tensor([1.0, -0.5, 0.25], dtype=dtype)
    compare_outputs(expected + torch.tensor([0, noise, 0], dtype=dtype), expected, "Network")
    with pytest.raises(SurgeryError, match="differs from the masked run"):
        compare_outputs(expected + torch.tensor([0, error, 0], dtype=dtype), expected, "Network")

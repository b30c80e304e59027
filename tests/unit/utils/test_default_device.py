"""A default device of the caller's: results are the same, and the caller's own code runs with it."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks

pytestmark = untrained_networks
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(48) % 3


NOTED: set[str] = set()  # what a module holds is restored after its runs


class Noting(nn.Module):
    """A network that notes the default device of its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        NOTED.add(torch.get_default_device().type)
        return self.layers(x)


def _pruned(model: nn.Module, by: str) -> sc.Result:
    return sc.prune(model, [(X, LABELS)], {"macs": 0.5}, by=by, progress=False)


@pytest.mark.parametrize("by", ["obs", "taylor", "shapley"])
def test_results_do_not_depend_on_the_default_device(by: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    expected = _pruned(model, by)
    with torch.device("meta"):
        result = _pruned(model, by)
        assert torch.get_default_device().type == "meta"
    assert torch.equal(result.model(X), expected.model(X)) and result.plan.kept["0"].device.type == "cpu"


def test_models_losses_metrics_and_repairs_run_with_the_callers_default_device() -> None:
    devices: set[str] = set()
    network = Noting()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        devices.add(f"loss {torch.get_default_device().type}")
        return nn.functional.cross_entropy(output, target, reduction="none")

    def metric(output: Tensor, target: Tensor) -> Tensor:
        devices.add(f"metric {torch.get_default_device().type}")
        return output.argmax(1) == target

    def repair(small: nn.Module, dense: nn.Module, batches: object) -> None:
        devices.add(f"repair {torch.get_default_device().type}")

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.device("meta"):
        sc.prune(
            model, [(X, LABELS)], {"macs": 0.5}, by="taylor", loss=loss, metric=metric, repair=repair, progress=False
        )
    assert devices == {"loss meta", "metric meta", "repair meta"}
    with torch.device("meta"):
        sc.trace(network, X[:2])
    assert {"meta"} == NOTED

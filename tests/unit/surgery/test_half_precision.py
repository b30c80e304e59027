"""Half precision inside a model whose outputs are in single precision: noise is that of the lowest type on the way."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.surgery.verify import output_difference

X = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def body() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*first, nn.Linear(16, 12, bias=False), nn.ReLU(), nn.Linear(12, 5))


class Casting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.bfloat16()).float()


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x).float()


@pytest.mark.parametrize("repair", ["refit", "adapt", "batchnorm"])
@pytest.mark.parametrize("kind", [Casting, Autocast])
@untrained_networks
def test_layers_in_half_precision_keep_their_type(kind: type[nn.Module], repair: str) -> None:
    model = kind()
    result = sc.prune(model, X, {"macs": 0.5}, by="l1", repair=repair, progress=False)
    assert {group.name for group in result.plan.network.groups} == {"body.0", "body.5"}
    assert result.model(X).dtype == torch.float32
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {name: t.dtype for name, t in result.model.state_dict().items() if name in types} == types


def test_the_tolerance_follows_the_lowest_type() -> None:
    assert sc.trace(body(), X).program.lowest_type == torch.float32
    assert sc.trace(Casting(), X).program.lowest_type == torch.bfloat16
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.02])
    assert output_difference(a, b)[1] == output_difference(a, b, torch.float32)[1] < output_difference(a, b)[0]
    assert output_difference(a, b)[0] < output_difference(a, b, torch.bfloat16)[1]
    assert output_difference(a.bfloat16(), b.bfloat16(), torch.float32)[1] == output_difference(a, b, torch.bfloat16)[1]

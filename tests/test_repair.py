"""Repairs in closed form."""

import pytest
import torch
from torch import nn

import secateur as sc
from zoo import grow


def test_batch_norm_statistics_are_those_of_the_examples() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))
    model.eval()
    x = torch.randn(40, 3, 8, 8)
    sc.repair(model, model, x, how="batchnorm")
    with torch.no_grad():
        y = model[0](x)
        assert torch.allclose(model[1].running_mean, y.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(model[1].running_var, y.transpose(0, 1).flatten(1).var(1), atol=1e-4)
        z = model[3](nn.functional.batch_norm(y, None, None, training=True) * 1.0)
        assert torch.allclose(model[4].running_mean, z.mean((0, 2, 3)), atol=1e-3)
    assert model[1].momentum == 0.1 and not any(module.training for module in model.modules())


def test_a_model_without_batch_norm_is_as_it_was() -> None:
    model = grow("mlp")[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sc.repair(model, model, torch.randn(9, 6))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_it_brings_a_cut_network_nearer_to_the_dense_one() -> None:
    model, _ = grow("vgg")
    torch.manual_seed(1)
    data = [torch.randn(32, 3, 8, 8) for _ in range(4)]
    sc.repair(model, model, data)
    found = [
        sc.prune(model, data, {"macs": 0.5}, by="l1", repair=how, progress=False).report.pruned.divergence
        for how in (None, "batchnorm")
    ]
    assert found[1] < found[0]


def test_an_unknown_repair_lists_the_known() -> None:
    with pytest.raises(sc.SecateurError, match="no repair is named 'prayer'; known are batchnorm"):
        sc.repair(grow("mlp")[0], grow("mlp")[0], torch.randn(9, 6), how="prayer")
    with pytest.raises(sc.SecateurError, match="no repair is named 'prayer'"):
        sc.prune(grow("mlp")[0], torch.randn(9, 6), {"macs": 0.5}, repair="prayer")

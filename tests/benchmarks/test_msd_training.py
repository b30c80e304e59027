"""The benchmark's training of mixed-scale dense networks in one buffer, against PyTorch's own modules and autograd."""

import pytest
import torch
from papers.msd_network import MixedScaleDense, mirror
from papers.msd_trainer import BufferTrainer
from papers.msd_training import MapBuffer
from torch import Tensor
from torch.nn import functional as F

SIDE = 24


def small_network() -> MixedScaleDense:
    torch.manual_seed(0)
    model = MixedScaleDense(12, mirrored=True).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    with torch.no_grad():
        model.layers[3].weight[:, 1] = 0  # type: ignore[union-attr, index]
    return model


def examples() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 1, SIDE, SIDE, dtype=torch.float64), torch.randint(0, 5, (4, SIDE, SIDE))


def test_mirrored_borders_repeat_the_edge() -> None:
    row = torch.tensor([1.0, 2, 3]).expand(1, 1, 3, 3)
    assert mirror(row, 2)[0, 0, 0].tolist() == [2, 1, 1, 2, 3, 3, 2]


def test_scores_and_gradients_are_those_of_autograd() -> None:
    model, (x, y) = small_network(), examples()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    maps = MapBuffer(model, 4, SIDE, torch.device("cpu"), torch.float64)
    with torch.no_grad():
        assert torch.allclose(maps.scores(x).transpose(0, 1), model(x), atol=1e-12)
        assert float(maps.backward(x, y)) == pytest.approx(float(loss), abs=1e-12)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(maps.slopes[name], parameter.grad * (parameter != 0), atol=1e-12), name


def test_an_epoch_is_one_of_adam_with_zeros_held() -> None:
    model, (x, y) = small_network(), examples()
    maps = MapBuffer(model, 2, SIDE, torch.device("cpu"), torch.float64)
    trainer = BufferTrainer(maps, x, y, learning_rate=0.01)
    trainer.epoch(seed=3)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    zeros = {name: parameter.detach() == 0 for name, parameter in model.named_parameters()}
    for chosen in torch.randperm(4, generator=torch.Generator().manual_seed(3)).split(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter[zeros[name]] = 0
    for name, parameter in model.named_parameters():
        assert torch.allclose(maps.weights[name], parameter, atol=1e-7), name
    right = model(x).argmax(1) == y
    assert trainer.accuracy(x, y) == pytest.approx(float(right.double().mean()))
    maps.take(small_network())
    maps.give(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), small_network().parameters(), strict=True))

"""Games of networks that fold frames into the axis of the examples."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc


class FramesModel(nn.Module):
    """A network that treats each frame (examples, frames, 3, height, width) like an image, and averages its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.hidden, self.last = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        images = torch.relu(self.second(torch.relu(self.first(x.flatten(0, 1)))))
        scores: Tensor = self.last(torch.relu(self.hidden(images.mean((2, 3)))))
        return scores.unflatten(0, (-1, x.shape[1])).mean(1)


@pytest.mark.parametrize("name", ["first", "second", "hidden"])
def test_losses_without_a_unit_are_those_of_the_network_without_it(name: str) -> None:
    torch.manual_seed(0)
    model, x, y = FramesModel().eval(), torch.randn(8, 2, 3, 6, 6), torch.randint(0, 3, (8,))
    network = sc.trace(model, x)
    scores = sc.score(network, [(x, y)], by="leave-one-out", ablation="zero", only=name, progress=False)[name]
    exact = sc.score(network, [(x, y)], by="shapley", ablation="zero", only=name, aggregate="mean", progress=False)
    module = model.get_submodule(name)

    def loss_without(units: list[int]) -> float:
        handle = module.register_forward_hook(
            lambda _, args, out: out.index_fill(1, torch.tensor(units, dtype=torch.long), 0.0)
        )
        with torch.no_grad():
            loss = F.cross_entropy(model(x), y)
        handle.remove()
        return float(loss)

    count = len(scores.values)
    expected = torch.tensor([loss_without([unit]) - loss_without([]) for unit in range(count)], dtype=torch.float64)
    assert torch.allclose(scores.values, expected, atol=1e-6)
    gain = loss_without(list(range(count))) - loss_without([])
    assert float(exact[name].values.sum()) == pytest.approx(gain, abs=1e-5)

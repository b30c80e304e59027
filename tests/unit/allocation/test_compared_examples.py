"""Plans are compared on as many examples as their class scores need: a sequence gives a row for each token."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.compared_examples import FEWEST_SEQUENCES, compared_examples, scored_positions
from secateur.allocation.config import PruneConfig
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.tied_groups import tie_groups
from secateur.evaluation.calibration import Calibration
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.data_checks import batches_for


class TokenScores(nn.Module):
    """Class scores for each token of a sequence, under the name of the transformers library."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed, self.up, self.head = nn.Embedding(7, 4), nn.Linear(4, width), nn.Linear(width, 7)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(torch.relu(self.up(self.embed(tokens))))}


class Maps(nn.Module):
    """Class scores for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.last(torch.relu(self.first(images)))}


def sequences(length: int, width: int = 8) -> sc.Network:
    return sc.trace(TokenScores(width), torch.zeros(2, length, dtype=torch.long))


@pytest.mark.parametrize(
    ("length", "width", "expected"),
    [
        (256, 8, 8192 // 256),
        (100, 8, 82),  # 8,192 tokens are not a multiple
        (16, 8, 128),  # short sequences: the most
        (2048, 8, FEWEST_SEQUENCES),
        (512, 4096, 4 * 4096 // 512),  # a quick refit of the widest layer reads four rows for each value
    ],
)
def test_language_models_are_compared_by_tokens(length: int, width: int, expected: int) -> None:
    assert compared_examples(sequences(length, width), 128) == expected


def test_other_networks_count_by_examples() -> None:
    """One row of scores, a map of scores, and hidden states are compared on as many examples as before."""
    maps = sc.trace(Maps(), torch.zeros(2, 3, 32, 32))
    hidden = sc.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), torch.zeros(2, 512, 4))
    assert [scored_positions(network.program) for network in (maps, hidden, sequences(12))] == [1, 1, 12]
    assert compared_examples(maps, 128) == compared_examples(hidden, 128) == 128


def test_plans_and_curves_use_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 48 sequences of 256 tokens, 32 compare plans, and curves are measured on no more."""
    torch.manual_seed(0)
    network = sequences(256)
    tokens = torch.randint(7, (48, 256))
    microbatches = network_microbatches(network, as_examples(network, batches_for(network, tokens.split(8))))
    simulator = PlanSimulator(Calibration(network, microbatches))
    measured: list[int] = []
    original = PlanSimulator.quick_held_out
    monkeypatch.setattr(
        PlanSimulator, "quick_held_out", lambda self, most: (measured.append(most), original(self, most))[1]
    )
    scores = sc.score(network, tokens.split(8), by="l2", ablation="zero", progress=False)
    config = PruneConfig()
    allocations = candidate_allocations(simulator, scores, config)
    search = PlanSearch(simulator, tie_groups(network, scores), config, None, allocations)
    assert measured == [32]
    assert search.quick.examples == 32

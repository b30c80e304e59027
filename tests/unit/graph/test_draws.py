"""Forwards that draw random numbers: units before, behind and beside them are cut, and checked on equal numbers."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.data.conversion import as_batches
from secateur.graph.random_draws import seeded_generators
from secateur.masking.ablation import masked_draws, run_masked
from secateur.surgery.verify import output_difference
from secateur.training.loop import TrainingLoop, TrainingSettings

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """An encoder, something random, and a decoder."""

    def __init__(self, draw: Callable[[Any, Tensor], Tensor], convolutions: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.latent = 8
        if convolutions:
            self.a, self.b, self.c = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 3, 1)
        else:
            self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(8, 3)
        self.deviation = nn.Linear(12, 8)
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.draw(self, F.relu(self.a(x)))))


def variational(net: Net, h: Tensor) -> Tensor:
    mean, deviation = net.b(h), net.deviation(h).exp()
    return mean + torch.randn_like(mean) * deviation


def sized(net: Net, h: Tensor) -> Tensor:
    return net.b(h) + torch.randn(h.shape[0], net.latent)


def generated(net: Net, h: Tensor) -> Tensor:
    mean = net.b(h)
    return mean + torch.randn(mean.shape, generator=None, device=mean.device, dtype=mean.dtype)


def distribution(net: Net, h: Tensor) -> Tensor:
    return torch.distributions.Normal(net.b(h), net.deviation(h).exp(), validate_args=False).rsample()


def checked_distribution(net: Net, h: Tensor) -> Tensor:
    return torch.distributions.Normal(net.b(h), 0.5).rsample()


def uniform_distribution(net: Net, h: Tensor) -> Tensor:
    mean = net.b(h)
    return torch.distributions.Uniform(mean - 1, mean + 1).rsample()


def gumbel(net: Net, h: Tensor) -> Tensor:
    logits = net.b(h)
    return logits - torch.rand_like(logits).clamp(1e-6, 1 - 1e-6).log().neg().log()


def path_dropped(net: Net, h: Tensor) -> Tensor:
    return net.b(h) * h.new_empty(h.shape[0], 1).bernoulli_(0.5)


DRAWS: dict[str, tuple[Callable[[Any, Tensor], Tensor], bool, set[str]]] = {
    "variational": (variational, False, {"a", "b"}),
    "sizes given": (sized, False, {"a", "b"}),
    "generator that is None": (generated, False, {"a", "b"}),
    "distribution": (distribution, False, {"a", "b"}),
    "distribution that checks its arguments, of one deviation": (checked_distribution, False, {"a", "b"}),
    "uniform distribution": (uniform_distribution, False, {"a", "b"}),
    "gumbel": (gumbel, False, {"a", "b"}),
    "uniform in place": (lambda net, h: net.b(h + torch.empty_like(h).uniform_()), False, {"a", "b"}),
    "normal in place": (lambda net, h: net.b(h + torch.empty_like(h).normal_(0, 0.5)), False, {"a", "b"}),
    "bernoulli of units": (lambda net, h: net.b(torch.bernoulli(h.sigmoid()) * h), False, {"a", "b"}),
    "one number for each example": (lambda net, h: net.b(h + torch.randn(h.shape[0], 1)), False, {"a", "b"}),
    "path": (path_dropped, False, {"a", "b"}),
    "dropout": (lambda net, h: net.b(F.dropout(h, 0.3, training=True)), False, {"a", "b"}),
    "dropout of channels": (lambda net, h: net.b(F.dropout2d(h, 0.3, training=True)), True, {"a", "b"}),
    "alpha dropout": (lambda net, h: net.b(F.alpha_dropout(h, 0.3, training=True)), False, {"a", "b"}),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_cut_is_masked_on_the_same_draws(kind: str) -> None:
    draw, convolutions, expected = DRAWS[kind]
    model, x = Net(draw, convolutions).eval(), IMAGES if convolutions else X
    state = torch.get_rng_state()
    network = sc.trace(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert {group.name for group in network.groups} == expected
    kept = {group.name: torch.arange(group.size)[::2] for group in network.groups}
    plan = sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {})
    small, batch = sc.cut(model, plan), network.example
    mask = network.mask(kept)
    with torch.no_grad():
        wanted = run_masked(network, batch, mask, {})
        with masked_draws(network, batch, mask, {}):
            gap, allowed = output_difference(small(*batch.args), wanted)
        assert gap <= allowed
        assert max(output_difference(small(*batch.args), wanted)[0] for _ in range(16)) > allowed  # on other numbers


@pytest.mark.parametrize("kind", ["variational", "dropout"])
@untrained_networks
def test_the_same_seed_gives_the_same_result_whatever_was_drawn_before(kind: str, tmp_path: Path) -> None:
    model = Net(DRAWS[kind][0]).eval()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(sc.prune(model, X, {"params": 0.6}, progress=False))
        assert torch.equal(torch.rand(()), torch.rand((), generator=torch.Generator().manual_seed(seed)))
    first, second = results
    assert all(torch.equal(first.plan.kept[name], kept) for name, kept in second.plan.kept.items())
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())
    first.save(tmp_path)
    loaded = sc.load(Net(DRAWS[kind][0]), tmp_path)
    outputs = []
    for small in (loaded, first.model):
        torch.manual_seed(0)
        outputs.append(small(X))
    assert torch.equal(*outputs)


def test_a_run_of_the_program_draws_the_same_wherever_it_starts() -> None:
    program = sc.trace(Net(variational).eval(), X).program
    batch, first = Batch((X,), {}), program.first
    torch.manual_seed(1)
    whole = program.forward(batch)
    torch.manual_seed(2)
    middle = program.position[next(iter(program.draws))]
    values = program.run({**program.fixed(), **program.bind(batch)}, first, middle, {})
    values = program.run({**program.fixed(), **values}, middle, len(program.nodes) - 1, {}, program.output_nodes)
    assert torch.equal(program.finish(values), whole)


class Attention(nn.Module):
    """Attention whose dropout is on in evaluation, too, as it is where somebody forgot `self.training`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = 4
        self.qkv, self.out = nn.Linear(6, 48), nn.Linear(16, 3)
        self.mlp = nn.Linear(3, 10)
        self.last = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.3)
        return self.last(F.relu(self.mlp(self.out(y.transpose(1, 2).flatten(2)))))


def test_heads_are_cut_where_attention_drops_at_random() -> None:
    network = sc.trace(Attention().eval(), torch.randn(4, 5, 6))
    assert {group.name: group.kind for group in network.groups}["qkv"] == "heads"
    kept = {"qkv": torch.tensor([1, 3])}
    sc.cut(Attention().eval(), sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))  # it is verified


class Shuffled(Net):
    """Draws that no rule follows: which units are left out is drawn for all at once."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.a(x))
        order = torch.randperm(hidden.shape[1])
        return self.c(F.relu(self.b(hidden * (order > 3))))


def test_what_can_not_be_matched_is_frozen_and_names_the_operator() -> None:
    network = sc.trace(Shuffled(variational).eval(), X)
    assert set(network.by_name) == {"b"}
    (reason,) = (frozen.reason for frozen in network.frozen if frozen.name == "a")
    assert reason == "meets random numbers that randperm draws"


class NoisyAttention(nn.Module):
    """Attention whose dropout is 0, beside an input that noise is added to."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rate, self.embed = rate, nn.Linear(6, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + torch.randn_like(x)
        query, key, value = (
            layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=self.rate)
        return self.head(y.transpose(1, 2).flatten(2))


def test_attention_without_dropout_draws_nothing_so_that_its_result_is_checked() -> None:
    model, x = NoisyAttention().eval(), torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    network = sc.trace(model, x)
    assert [node.target for node in network.program.draws] == [torch.ops.aten.randn_like.default]
    mask = network.mask({})
    with torch.no_grad():
        wanted = run_masked(network, network.example, mask, {})
        with masked_draws(network, network.example, mask, {}):
            assert output_difference(model(*network.example.args), wanted)[0] < 1e-5
        model.value.weight.mul_(2)
        with masked_draws(network, network.example, mask, {}):
            assert output_difference(model(*network.example.args), wanted)[0] > 1e-2


def test_attention_with_dropout_draws() -> None:
    network = sc.trace(NoisyAttention(0.2).eval(), torch.randn(4, 5, 6))
    assert torch.ops.aten.scaled_dot_product_attention.default in {node.target for node in network.program.draws}


def test_examples_that_are_shuffled_are_one_example() -> None:
    model = Net(lambda net, h: net.b(h[torch.randperm(h.shape[0])])).eval()
    network = sc.trace(model, X)
    assert network.example.is_one_example
    assert set(network.by_name) == {"a", "b"}


def test_seeds_are_not_kept_for_accelerators_that_are_not_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks: list[int] = []
    monkeypatch.setattr(traceback, "format_stack", lambda: stacks.append(0))  # what torch keeps beside each such seed
    model = nn.Sequential(nn.Dropout(), nn.Linear(6, 3))
    loop = TrainingLoop(model, model, as_batches(X), torch.optim.SGD(model.parameters()), TrainingSettings())
    assert loop.run("with dropout", 2) == 2 and not stacks
    with seeded_generators(0):
        first_draw = torch.rand(())
    with seeded_generators(0):
        assert torch.rand(()) == first_draw
    assert not stacks

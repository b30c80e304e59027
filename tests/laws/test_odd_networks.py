"""Networks that once went wrong, here or elsewhere, each with what should happen."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.evaluation.losses import supervised_losses
from secateur.masking.ablation import run_masked
from secateur.masking.unit_means import consumer_means
from secateur.surgery.verify import output_difference

pytestmark = untrained_networks  # random weights


class Net(nn.Module):
    """Layers by name, and a forward given as a function."""

    def __init__(self, forward: Any, **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def cut_is_masked(model: nn.Module, *inputs: Tensor) -> sc.Network:
    """Law 1 for a random half of every group, with zeros and with means."""
    network = sc.trace(model.eval(), inputs)
    kept = {
        group.name: torch.randperm(group.size)[: max(group.fewest, group.size // 2)].sort().values
        for group in network.groups
    }
    batch = Batch(inputs, {})
    for means in ({}, consumer_means(network, [batch])):
        plan = sc.Plan(network, kept, means, network.cost(kept, bool(means)), network.cost(), {})
        small = sc.cut(model, plan)
        with torch.no_grad():
            gap = (small(*inputs) - run_masked(network, batch, network.mask(kept), means)).abs().max()
        assert gap < 1e-4
        assert plan.cost.params == sum(parameter.numel() for parameter in small.parameters())
    return network


def test_one_output_is_no_class() -> None:
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)), torch.randn(60, 5)
    assert float(sc.score(sc.trace(model, x), x, progress=False)["0"].values.abs().min()) > 0
    assert sc.prune(model, x, {"units": 0.3}, progress=False).report.pruned.divergence > 0


@pytest.mark.parametrize("by", ["taylor", "taylor-signed", "apoz", "sensitivity"])
def test_examples_are_told_apart_whatever_shares_their_axis(by: str) -> None:
    layers = {"a": nn.Linear(5, 8), "b": nn.Linear(8, 6), "c": nn.Linear(6, 3)}

    def batch_first(net: Any, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = F.relu(net.b(F.relu(net.a(x.reshape(batch * length, width)))))
        return net.c(y.view(batch, length, -1).mean(1))

    def time_first(net: Any, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = F.relu(net.b(F.relu(net.a(x.transpose(0, 1).reshape(length * batch, width)))))
        return net.c(y.view(length, batch, -1).mean(0))

    data = [(torch.randn(20, 4, 5), torch.randint(0, 3, (20,)))]
    scores = [
        sc.score(sc.trace(Net(f, **layers), data), data, by=by, progress=False) for f in (batch_first, time_first)
    ]
    for name in ("a", "b"):
        assert torch.allclose(scores[0][name].per_example, scores[1][name].per_example, rtol=1e-4, atol=1e-7)


def test_work_without_a_rule_is_counted() -> None:
    net = Net(
        lambda net, x: net.last(torch.inner(F.relu(net.first(x)), net.mixed.weight)),
        first=nn.Linear(6, 8), mixed=nn.Linear(8, 5), last=nn.Linear(5, 3),
    )  # fmt: skip
    x = torch.randn(4, 6)
    with FlopCounterMode(display=False) as counter:
        net(x)
    network = sc.trace(net, x)
    assert network.cost().macs * 4 * 2 == counter.get_total_flops()
    assert any(frozen.name == "mixed" for frozen in network.frozen)


def test_every_layer_that_can_not_be_cut_is_named() -> None:
    model = Net(
        lambda net, x: net.last(torch.fft.rfft(net.cell(net.first(x))[0][:, -1]).abs()),
        first=nn.Linear(5, 7),
        cell=nn.LSTM(7, 6, batch_first=True, proj_size=4),
        last=nn.Linear(3, 2),
    )
    named = {frozen.name.split(".")[0] for frozen in sc.trace(model, torch.randn(3, 4, 5)).frozen}
    assert named == {"first", "cell", "last"}


def saved(model: nn.Module, x: Tensor, folder: Path) -> sc.Result:
    result = sc.prune(model, x, {"units": 0.5}, by="l1", progress=False)
    result.save(folder)
    return result


def test_results_are_refused_by_another_class_argument_or_type(tmp_path: Path) -> None:
    def make(groups: int = 4) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.GroupNorm(groups, 8), nn.Linear(8, 3)).eval()

    saved(make(), torch.randn(4, 6), tmp_path)
    for wrong, message in (
        (torch.export.export(make(), (torch.randn(4, 6),)).module(), "was saved from a Sequential"),
        (make(groups=2), "num_groups is 4"),
        (make().half(), "convert the fresh model first"),
    ):
        before = {name: tensor.clone() for name, tensor in wrong.state_dict().items()}
        with pytest.raises(sc.SecateurError, match=message):
            sc.load(wrong, tmp_path)
        assert all(torch.equal(before[name], tensor) for name, tensor in wrong.state_dict().items())


@pytest.mark.parametrize("widths", [(8, 6), (6, 8)])
def test_scores_of_another_network_are_refused(widths: tuple[int, int]) -> None:
    networks = [
        sc.trace(nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3)), torch.randn(3, 5))
        for width in widths
    ]
    with pytest.raises(sc.SecateurError, match="scores of another network"):
        sc.plan(networks[0], sc.score(networks[1], by="l1"), {"units": 0.5})


def test_a_model_that_counts_its_calls_is_left_as_it_was() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        net.calls += 1
        return net.last(F.relu(net.first(x)))

    model = Net(forward, first=nn.Linear(6, 16), last=nn.Linear(16, 3)).eval()
    model.register_buffer("calls", torch.zeros(()))
    result = sc.prune(model, torch.randn(20, 6), {"units": 0.5}, by="l1", progress=False)
    assert float(model.calls) == float(result.model.calls) == 0


def test_a_cut_in_place_that_fails_leaves_the_model() -> None:
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(20, 5)
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l1"), {"units": 0.5})
    with pytest.raises(sc.SecateurError, match="make a new optimizer"):
        sc.cut(model, plan, inplace=True, optimizer=optimizer)
    assert model[0].out_features == 8 and model[0].weight.shape == (8, 5)


@pytest.mark.parametrize("change", ["other weights", "other type"])
def test_a_model_that_changed_since_its_trace_says_so(change: str) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

    model = make()
    network = sc.trace(model, torch.randn(3, 5))
    plan = sc.plan(network, sc.score(network, by="l1"), {"units": 0.5})
    if change == "other weights":
        model.load_state_dict(make().state_dict(), assign=True)
    else:
        model = copy.deepcopy(model).double()
    with pytest.raises(sc.SecateurError, match="trace the model again"):
        sc.cut(model, plan)


def test_classes_and_positions_of_equal_number_follow_torch() -> None:
    scores, target = torch.randn(2, 6, 6), torch.randint(0, 6, (2, 6))
    expected = F.cross_entropy(scores, target, reduction="none").mean(1)
    assert torch.allclose(supervised_losses(scores, target), expected)
    expected = F.cross_entropy(scores.transpose(1, 2), target, reduction="none").mean(1)
    assert torch.allclose(supervised_losses({"logits": scores}, target), expected)


def test_units_before_a_detach_are_worth_something() -> None:
    model = Net(
        lambda net, x: net.c(F.relu(net.b(F.relu(net.a(x)))).detach()),
        a=nn.Linear(5, 8),
        b=nn.Linear(8, 6),
        c=nn.Linear(6, 3),
    )
    data = [(torch.randn(30, 5), torch.randint(0, 3, (30,)))]
    assert float(sc.score(sc.trace(model, data), data, by="taylor", progress=False)["a"].values.max()) > 0


def test_tied_embedding_and_head_with_a_bias() -> None:
    def forward(net: Any, ids: Tensor) -> Tensor:
        x = net.embed(ids)
        return net.head(F.relu(x + net.down(F.gelu(net.up(x)))))

    for vocabulary in (20, 16):
        model = Net(
            forward,
            embed=nn.Embedding(vocabulary, 16),
            up=nn.Linear(16, 12),
            down=nn.Linear(12, 16),
            head=nn.Linear(16, vocabulary),
        )
        model.head.weight = model.embed.weight
        network = cut_is_masked(model, torch.randint(0, 16, (6, 5)))
        assert {group.name: group.size for group in network.groups} == {"embed": 16, "up": 12}


def test_weights_the_other_way_round() -> None:
    class Transposed(nn.Module):
        def __init__(self, width_in: int, width_out: int) -> None:
            super().__init__()
            self.weight, self.bias = (
                nn.Parameter(torch.randn(width_in, width_out) / 3),
                nn.Parameter(torch.randn(width_out)),
            )

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.weight)

    network = cut_is_masked(nn.Sequential(Transposed(5, 9), nn.GELU(), Transposed(9, 3)), torch.randn(9, 5))
    assert network.units == 9


@pytest.mark.parametrize("length", [4, 6])
def test_a_batch_norm_over_another_axis_than_the_units(length: int) -> None:
    model = Net(
        lambda net, x: net.o(F.relu(net.n(net.b(F.relu(net.a(x))))).mean(1)),
        a=nn.Linear(5, 8), b=nn.Linear(8, 6, bias=False), n=nn.BatchNorm1d(length), o=nn.Linear(6, 3),
    )  # fmt: skip
    assert cut_is_masked(model, torch.randn(9, length, 5))["a"].size == 8


def test_biases_that_are_shared_computed_or_not_read() -> None:
    layers = [layer for _ in range(3) for layer in (nn.Linear(8, 8), nn.ReLU())]
    shared = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), *layers, nn.Linear(8, 3))
    shared[4].bias = shared[2].bias
    borrowed = Net(
        lambda net, x: F.linear(F.relu(net.a(x)), net.b.weight), a=nn.Linear(5, 8), b=nn.Linear(8, 3, bias=False)
    )
    computed = Net(
        lambda net, x: F.linear(F.relu(net.a(x)), net.b.weight, net.b.bias * 0.5), a=nn.Linear(5, 8), b=nn.Linear(8, 3)
    )
    for model in (shared, borrowed, computed):
        assert cut_is_masked(model, torch.randn(9, 5)).groups


def test_narrow() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = F.relu(net.a(x))
        half = y.shape[1] // 2
        return net.o(y.narrow(1, 0, half) * y.narrow(1, half, half))

    assert cut_is_masked(Net(forward, a=nn.Linear(6, 16), o=nn.Linear(8, 3)), torch.randn(9, 6))["a"].size == 8


def test_outputs_without_a_batch_are_passed_over() -> None:
    model = Net(lambda net, x: ((y := net.b(F.relu(net.a(x)))), y.mean(0)), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    for data in ([(torch.randn(9, 5), torch.randint(0, 3, (9,)))], [torch.randn(9, 5)]):
        assert sc.prune(model, data, {"units": 0.5}, by="l1", progress=False).model.a.out_features == 4
    model = Net(lambda net, x: net.b(F.relu(net.a(x))).argmax(1), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    with pytest.raises(sc.SecateurError, match=r"no floating-point tensor|nothing in this network"):
        sc.prune(model, torch.randn(9, 5), {"units": 0.5}, progress=False)


def test_a_batch_size_that_is_written_into_the_code() -> None:
    model = Net(lambda net, x: net.b(F.relu(net.a(x.view(5, 6)))), a=nn.Linear(6, 8), b=nn.Linear(8, 3))
    network = sc.trace(model, torch.randn(5, 6))
    assert network["a"].size == 8
    assert sc.score(network, torch.randn(5, 6), progress=False)["a"].values.shape == (8,)


def test_labels_in_a_dict_are_never_inputs() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batch = {"input": torch.randn(7, 6), "labels": torch.randint(0, 3, (7,))}
    network = sc.trace(model, batch)
    assert sc.score(network, [batch], by="taylor", progress=False)["0"].values.shape == (8,)


def test_a_squeeze_that_one_unit_would_not_survive() -> None:
    model = Net(
        lambda net, x: net.fc(F.adaptive_avg_pool2d(F.relu(net.conv(x)), 1).squeeze()),
        conv=nn.Conv2d(3, 6, 3),
        fc=nn.Linear(6, 2),
    )
    network = sc.trace(model, torch.randn(4, 3, 8, 8))
    assert network["conv"].fewest == 2
    plan = sc.plan(network, sc.score(network, by="l1"), {"units": 0.34})
    assert sc.cut(model, plan).conv.out_channels == 2
    with pytest.raises(sc.SecateurError, match=r"smallest reachable is units 0\.3334"):
        sc.plan(network, sc.score(network, by="l1"), {"units": 0.2})


def test_a_shuffling_loader_leaves_the_global_random_state() -> None:
    x = torch.utils.data.TensorDataset(torch.randn(40, 6))
    loader = torch.utils.data.DataLoader(x, batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    before = torch.get_rng_state()
    sc.prune(model, loader, {"units": 0.5}, progress=False)
    assert torch.equal(before, torch.get_rng_state())


def test_grouped_queries_rotations_and_hand_written_norms() -> None:
    """The attention of a Llama: two heads of keys for four of queries."""

    def rotated(x: Tensor, angles: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    def forward(net: Any, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        q, k, v = (layer(y).view(batch, length, -1, 4).transpose(1, 2) for layer in (net.q, net.k, net.v))
        angles = (torch.arange(length)[:, None] * net.frequencies).repeat(1, 2)
        q, k = rotated(q, angles), rotated(k, angles)
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(batch, -1, length, 4) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return net.head(net.o(y.transpose(1, 2).flatten(2)) + x)

    model = Net(
        forward, q=nn.Linear(6, 16), k=nn.Linear(6, 8), v=nn.Linear(6, 8), o=nn.Linear(16, 6), head=nn.Linear(6, 3)
    )
    model.register_buffer("frequencies", torch.tensor([1.0, 0.1]))
    network = cut_is_masked(model, torch.randn(3, 5, 6))
    assert {group.name: (group.size, group.kind) for group in network.groups} == {"q": (2, "heads")}


SENTENCES = torch.tensor([[1, 8, 8, 2], [8, 3, 8, 4], [5, 8, 6, 8]])
"""Sentences with two places for features each, (sentences, tokens)."""


def features_in_place_of_tokens(mask: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """Return the start of a language model that sees: features take the places of tokens that a mask picks."""

    def forward(net: Any, tokens: Tensor, features: Tensor) -> Tensor:
        x = net.embed(tokens)
        return net.last(F.silu(x.masked_scatter(mask(tokens, x), net.see(features))))

    return Net(forward, embed=nn.Embedding(9, 6), see=nn.Linear(5, 6), last=nn.Linear(6, 3))


@pytest.mark.parametrize("is_expanded", [False, True])
def test_features_that_take_the_places_of_tokens_are_coupled_with_them(is_expanded: bool) -> None:
    def mask(tokens: Tensor, x: Tensor) -> Tensor:
        rows = (tokens == 8)[..., None]
        return rows.expand_as(x) if is_expanded else rows

    network = cut_is_masked(features_in_place_of_tokens(mask), SENTENCES, torch.randn(3, 2, 5))
    assert [(group.name, group.size) for group in network.groups] == [("embed", 6)]


def test_features_that_take_the_places_of_single_entries_are_frozen() -> None:
    model = features_in_place_of_tokens(lambda tokens, x: (tokens == 8)[..., None] & (x > x.min()))
    network = sc.trace(model.eval(), (SENTENCES, torch.randn(3, 2, 5)))
    assert not network.groups
    assert {frozen.reason for frozen in network.frozen if frozen.name == "see"} == {"is written where a mask picks"}


def gate_expanded_as(gate: Tensor, x: Tensor) -> Tensor:
    return gate.expand_as(x)


def gate_expanded(gate: Tensor, x: Tensor) -> Tensor:
    return gate.expand(-1, x.shape[1], -1, -1)


def gate_repeated(gate: Tensor, x: Tensor) -> Tensor:
    return gate.repeat(1, x.shape[1], 1, 1)


def gate_tiled(gate: Tensor, x: Tensor) -> Tensor:
    return gate.tile(x.shape[1], 1, 1)


@pytest.mark.parametrize("repetition", [gate_expanded_as, gate_expanded, gate_repeated, gate_tiled])
def test_a_map_of_one_channel_that_is_repeated_for_all_channels_leaves_them_free(
    repetition: Callable[[Tensor, Tensor], Tensor],
) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = F.silu(net.conv(x))
        return net.last((x * repetition(torch.sigmoid(net.gate(x)), x)).mean((2, 3)))

    model = Net(forward, conv=nn.Conv2d(3, 6, 3), gate=nn.Conv2d(6, 1, 1), last=nn.Linear(6, 3))
    network = cut_is_masked(model, torch.randn(3, 3, 8, 8))
    assert [(group.name, group.size) for group in network.groups] == [("conv", 6)]


def test_gates_that_alternate_with_values_are_cut_in_pairs() -> None:
    """The gated layer of GPT-OSS."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.wide(x)
        return net.last(x[..., ::2].sigmoid() * x[..., 1::2])

    network = cut_is_masked(Net(forward, wide=nn.Linear(5, 12), last=nn.Linear(6, 3)), torch.randn(3, 5))
    assert [(group.name, group.size) for group in network.groups] == [("wide", 6)]


def test_a_slice_in_steps_of_a_part_is_frozen() -> None:
    model = Net(lambda net, x: net.last(net.wide(x)[..., 1:8:2]), wide=nn.Linear(5, 12), last=nn.Linear(4, 3))
    network = sc.trace(model.eval(), torch.randn(3, 5))
    assert {frozen.reason for frozen in network.frozen if frozen.name == "wide"} == {"is sliced in steps"}


class Three(nn.Module):
    """Three layers and a forward that is given."""

    def __init__(self, forward: Callable[["Three", Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.drop, self.clip, self.run = nn.Dropout(0.1), nn.ReLU6(inplace=True), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def clipped_half(net: Three, x: Tensor) -> Tensor:
    hidden = net.a(x)
    hidden.chunk(2, 1)[0].clamp_(max=6.0)
    return net.c(hidden)


def clipped_after_dropout(net: Three, x: Tensor) -> Tensor:
    hidden = net.a(x).relu()
    return net.c(net.b(net.clip(net.drop(hidden))) + hidden)


def compared_in_place(net: Three, x: Tensor) -> Tensor:
    hidden = net.a(x) * 1
    signs = hidden.clone().gt_(0)
    return net.c(hidden - signs - signs)


def of_two_types(net: Three, x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[0], 8)
    total.add_(net.a(x).double())
    return net.c(total)


def halves_by_number(net: Three, x: Tensor) -> Tensor:
    first, second = net.a(x).split(4, 1)
    return net.c(torch.cat([first, second.clamp(max=6)], 1))


def from_the_end(net: Three, x: Tensor) -> Tensor:
    hidden = net.a(x)
    return net.c(torch.cat([hidden[:, -3:], hidden[:, :-3].tanh()], 1))


def part_replaced(net: Three, x: Tensor) -> Tensor:
    return net.c(torch.slice_scatter(net.a(x), net.b(net.a(x))[:, :3], 1, 2, 5))


def one_replaced(net: Three, x: Tensor) -> Tensor:
    return net.c(torch.select_scatter(net.a(x), x[:, 0], 1, 2))


def reordered(net: Three, x: Tensor) -> Tensor:
    hidden = net.a(x)
    return net.c(net.b(hidden).gather(0, hidden.argsort(0)))


def some_counted_twice(net: Three, x: Tensor) -> Tensor:
    hidden = net.a(x).relu()
    return net.c(hidden) * hidden[:, :3].sum(1, keepdim=True)


FORMS = (
    clipped_half, clipped_after_dropout, compared_in_place, of_two_types, halves_by_number, from_the_end,
    part_replaced, one_replaced, reordered, some_counted_twice,
)  # fmt: skip


@pytest.mark.parametrize("as_program", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_writes_views_and_numbers_far_from_the_example(
    form: Callable[[Three, Tensor], Tensor], as_program: bool
) -> None:
    """On other inputs than the example, the program equals the model, and every group can lose any units."""
    torch.manual_seed(0)
    model, x = Three(form).eval(), torch.randn(4, 6)
    network = sc.trace(model, x, as_program=as_program)
    far = Batch((torch.randn(7, 6) * 20,), {})
    dense = run_masked(network, far, network.mask({}), {})
    with torch.no_grad():
        assert output_difference(model(*far.args), dense)[0] < 1e-5
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        kept = {
            group.name: torch.randperm(group.size, generator=generator)[: 1 + seed].sort().values
            for group in network.groups
        }
        small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
        masked = run_masked(network, far, network.mask(kept), {})
        with torch.no_grad():
            assert output_difference(small(*far.args), masked)[0] < 1e-4


def test_a_number_that_only_looks_like_a_size_is_left_alone() -> None:
    class Window(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.window, self.cells, self.a, self.c = 8, 8, nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x[:, : self.window]
            return self.c(self.a(x).relu().view(-1, self.cells).view(x.shape[0], -1, self.cells)).sum(1)

    network = sc.trace(Window().eval(), torch.randn(4, 5, 6))
    assert [mend.attribute for mend in network.attribute_updates] == ["cells"]


def test_what_an_export_leaves_in_a_model_is_taken_out_again() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c, self.seen, self.cache = nn.Linear(6, 8), nn.Linear(8, 3), None, {}

        def forward(self, x: Tensor) -> Tensor:
            if self.seen is None:
                self.seen = torch.ones(8)
            if "twice" not in self.cache:
                self.cache["twice"] = self.seen * 2
            return self.c((self.a(x) + self.cache["twice"]).relu())

    model = Lazy().eval()
    sc.trace(model, torch.randn(4, 6))
    assert model.seen is None and model.cache == {} and type(model(torch.randn(4, 6))) is Tensor


def test_masks_of_torch_are_folded_and_their_zeros_stay() -> None:
    model = nn.Sequential(prune.l1_unstructured(nn.Linear(6, 8), "weight", 0.3), nn.ReLU(), nn.Linear(8, 3)).eval()
    network = sc.trace(model, torch.randn(4, 6))
    kept = {"0": torch.arange(5)}
    small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
    assert torch.equal(small[0].weight, model[0].weight[:5]) and bool((small[0].weight == 0).any())


def test_a_model_that_looks_at_its_parametrization_is_refused_by_name() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) * self.a.parametrizations.weight.original0.mean())

    with pytest.raises(sc.SecateurError, match="looks at its own parametrizations"):
        sc.trace(Looking().eval(), torch.randn(4, 6))


def test_inputs_that_are_not_used_keep_the_batch_size_free_and_another_is_refused_where_it_is_not() -> None:
    class Surplus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor, *unused: Tensor) -> Tensor:
            return self.last(self.layer(x)[0][:, -1])

    network = sc.trace(Surplus().eval(), torch.randn(2, 5, 6))
    assert network.program.batched is not None
    fixed = sc.trace(Net(lambda net, x: net.last(F.relu(net.first(x.view(2, 6)))),
                         first=nn.Linear(6, 8), last=nn.Linear(8, 3)), torch.randn(2, 6))  # fmt: skip
    with pytest.raises(sc.SecateurError, match="fixes axis 0 of that input at 2"):
        fixed.program.bind(Batch((torch.randn(3, 6),), {}))
    other = Batch((torch.randn(4, 3),), {})  # which the model's code takes: it gives two rows
    assert fixed.program.forward(other).shape == (2, 3)


def _with_unused_pooler() -> nn.Module:
    def forward(self: Net, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        torch.tanh(self.pooler(hidden))  # as of encoders that pool in another way
        return self.last(hidden)

    return Net(forward, first=nn.Linear(6, 16), pooler=nn.Linear(16, 16), last=nn.Linear(16, 3)).eval()


@pytest.mark.parametrize("by", ["obs", "shapley", "taylor", "l2"])
def test_units_that_nothing_reads_are_worth_nothing(by: str) -> None:
    torch.manual_seed(0)
    data = torch.randn(40, 6)
    scores = sc.score(sc.trace(_with_unused_pooler(), data), (data, torch.arange(40) % 3), by, progress=False)
    assert bool((scores["pooler"].values == 0).all())
    assert bool((scores["first"].values > 0).any())


def test_units_that_nothing_reads_go_first() -> None:
    torch.manual_seed(0)
    result = sc.prune(_with_unused_pooler(), torch.randn(40, 6), {"params": 0.6}, progress=False)
    assert len(result.plan.kept["first"]) == 16
    assert len(result.plan.kept["pooler"]) < 10
    assert result.report.pruned.divergence == pytest.approx(0, abs=1e-6)

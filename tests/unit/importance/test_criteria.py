"""The other criteria, each against a plain computation, and one contract for all."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from random_plans import traced_without_options
from secateur.data.conversion import example_batches
from secateur.importance.activation import over_activations
from small_network import Small, batches
from zoo import grow

BUILT_IN = (
    "apoz", "fpgm", "integrated-gradients", "l1", "l2", "leave-one-out", "oracle", "oracle-absolute", "random",
    "sensitivity", "shapley", "taylor", "taylor-gates", "taylor-gates-before-norm", "taylor-gates-examples",
    "taylor-gates-norms", "taylor-gates-second", "taylor-signed", "taylor-weights", "taylor-weights-second",
)  # fmt: skip
AT_THE_DENSE = tuple(by for by in BUILT_IN if by.startswith("taylor") or by == "sensitivity")


@pytest.fixture
def small() -> Small:
    torch.manual_seed(3)
    return Small().eval()


@pytest.fixture
def network(small: Small) -> sc.Network:
    return sc.trace(small, batches()[0][0])


def test_all_built_in_criteria_are_listed() -> None:
    assert set(BUILT_IN) <= set(sc.criteria())


def test_weight_norms_over_all_that_makes_a_unit(small: Small, network: sc.Network) -> None:
    l1, l2 = (sc.score(network, by=by)["conv1"].values for by in ("l1", "l2"))
    weight = small.conv1.weight.detach().double().flatten(1)
    assert torch.allclose(l1, weight.abs().sum(1))
    assert torch.allclose(l2, weight.norm(dim=1))
    model, example = grow("residual")
    coupled = sc.score(sc.trace(model, example), by="l1")["stem.0"].values
    both = sum(w.detach().double().abs().flatten(1).sum(1) for w in (model.stem[0].weight, model.conv2.weight))
    assert torch.allclose(coupled, both)


@pytest.mark.parametrize(("groups", "outputs"), [(6, 6), (6, 12), (2, 8)])
def test_weights_of_grouped_transposed_convolutions_are_those_of_their_filters(groups: int, outputs: int) -> None:
    """They were left out, as the axis that they share with their input made no units."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, outputs, 2, groups=groups)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(outputs, 2, 1))
    network = sc.trace(model, torch.randn(4, 3, 5, 5))
    weights = [weight.detach().double().reshape(groups, -1) for weight in (first.weight, second.weight)]
    rows = torch.cat(weights, 1)
    expected = {
        "l1": rows.abs().sum(1),
        "l2": rows.norm(dim=1),
        "fpgm": torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1),
    }
    for by, values in expected.items():
        torch.testing.assert_close(sc.score(network, by=by)["0"].values, values)


def by_hand(small: Small, x: Tensor, y: Tensor) -> dict[str, list[Tensor]]:
    """APoZ, sensitivity and Taylor scores of each example, for both groups. (examples, units)"""
    values: dict[str, list[Tensor]] = {"apoz": [], "sensitivity": [], "taylor": [], "taylor-signed": []}
    a = F.relu(small.bn(small.conv1(x))).detach().requires_grad_()
    b = F.relu(small.conv2(a)).mean((2, 3))
    b.retain_grad()
    F.cross_entropy(small.fc(b), y, reduction="sum").backward()
    for z in (a, b):
        assert z.grad is not None
        z, g = z.detach().flatten(2) if z.dim() > 2 else z.detach()[..., None], z.grad.reshape(*z.shape[:2], -1)
        values["apoz"].append((z > 0).double().mean(2))
        values["sensitivity"].append(g.abs().sum(2))
        values["taylor-signed"].append((-z * g).sum(2))
        values["taylor"].append((z * g).sum(2).abs())
    return values


@pytest.mark.parametrize("by", ["apoz", "sensitivity", "taylor", "taylor-signed"])
def test_one_pass_criteria_against_a_plain_computation(small: Small, network: sc.Network, by: str) -> None:
    scores = sc.score(network, batches(), by=by, progress=False)
    for index, name in enumerate(("conv1", "conv2")):
        rows = torch.cat([by_hand(small, x, y)[by][index] for x, y in batches()]).double()
        assert torch.allclose(scores[name].values, rows.mean(0), rtol=1e-4, atol=1e-8)
        assert torch.allclose(scores[name].errors, rows.std(0) / 30**0.5, rtol=1e-4, atol=1e-8)


def test_the_gate_of_a_residual_stream_is_judged_over_all_its_readers() -> None:
    """The signed Taylor score is the derivative by a gate that closes every reader, by finite differences."""
    model, example = grow("residual")
    network = sc.trace(model, example)
    y = torch.tensor([0, 1, 2])
    values = sc.score(network, [(example, y)], by="taylor-signed", progress=False)["stem.0"].values
    model, x = model.double(), example.double()

    def loss(gate: Tensor) -> Tensor:
        a = model.stem(x)
        gated = a * gate[:, None, None]
        b = model.bn2(model.conv2(F.relu(model.bn1(model.conv1(gated))))) + a
        return F.cross_entropy(model.fc(F.relu(b).mean((2, 3)) * gate), y)

    gate = torch.ones(6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(gate), gate)
    assert torch.allclose(values, -gradient, rtol=1e-3, atol=1e-6)


def test_leave_one_out_is_the_loss_without_each_unit(small: Small, network: sc.Network) -> None:
    data = batches(1)
    values = sc.score(network, data, by="leave-one-out", ablation="zero", progress=False)["conv1"].values
    (x, y), a = data[0], small.sites(data[0][0])[0]
    with torch.no_grad():
        for unit in range(5):
            without = a.clone()
            without[:, unit] = 0
            logits = small.fc(F.relu(small.conv2(without)).mean((2, 3)))
            grown = F.cross_entropy(logits, y) - F.cross_entropy(small(x), y)
            assert float(values[unit]) == pytest.approx(float(grown), abs=1e-5)


def test_one_forward_and_one_backward_serve_all_groups(network: sc.Network) -> None:
    """Counted: each microbatch is run once for means and twice for a check at most, whatever the number of groups."""
    runs = []
    program = type(network.program)
    original = program.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return original(self, *args, **kwargs)

    program.forward = counted  # type: ignore[method-assign]
    try:
        sc.score(network, batches(), by="taylor", ablation="zero", progress=False)
    finally:
        program.forward = original  # type: ignore[method-assign]
    assert len(runs) == 1 + 1  # three batches in one microbatch, and one to see that the model takes them


@pytest.mark.parametrize("name", ["residual", "encoder", "two streams", "many groups", "bare parameters"])
@pytest.mark.parametrize("by", BUILT_IN)
def test_every_criterion_keeps_the_contract(by: str, name: str) -> None:
    """One finite score and error per unit, the same from the same seed, also without labels."""
    _, example, network = traced_without_options(name)
    data = [example_batches(example, torch.device("cpu"))[0]]
    if by in AT_THE_DENSE and name == "two streams":  # no class scores
        with pytest.raises(sc.SecateurError, match="need labels"):
            sc.score(network, data, by=by, progress=False)
        return
    few = {"coalitions": 8} if "coalitions" in sc.criteria()[by].options else {}
    first, again = (sc.score(network, data, by=by, **few, seed=7, progress=False) for _ in range(2))
    assert list(first) == [group.name for group in network.groups]
    for group in network.groups:
        scores = first[group.name]
        assert scores.values.shape == scores.errors.shape == (group.size,)
        assert bool(torch.isfinite(scores.values).all() & torch.isfinite(scores.errors).all())
        assert torch.equal(scores.values, again[group.name].values)


@sc.criterion("strength-of-ones-own")
def strength(context: Any) -> dict[str, Tensor]:
    return over_activations(context, lambda z: z.abs())


@pytest.mark.parametrize("name", ["residual", "encoder", "two streams", "many groups", "bare parameters"])
def test_a_criterion_of_ones_own_keeps_the_contract(name: str) -> None:
    test_every_criterion_keeps_the_contract("strength-of-ones-own", name)


def test_a_criterion_of_ones_own_by_name_and_as_a_callable(network: sc.Network) -> None:
    def last_first(context: Any) -> dict[str, Tensor]:
        return {group.name: -torch.arange(group.size) for group in context.groups}

    sc.criterion("test-last-first")(last_first)
    named, called = sc.score(network, by="test-last-first"), sc.score(network, by=last_first)
    assert named["conv1"].values.tolist() == called["conv1"].values.tolist() == [0, -1, -2, -3, -4]
    assert named.by == "test-last-first" and called.by == "last_first"


def test_random_does_not_depend_on_which_groups_are_asked_for(network: sc.Network) -> None:
    both, one = sc.score(network, by="random"), sc.score(network, by="random", only="conv2")
    assert torch.equal(both["conv2"].values, one["conv2"].values)
    assert list(one) == ["conv2"]


def test_scores_are_saved_and_reloaded(network: sc.Network, tmp_path: Any) -> None:
    scores = sc.score(network, batches(), by="shapley", coalitions=20, progress=False)
    scores.save(tmp_path / "scores.safetensors")
    loaded = sc.Scores.load(tmp_path / "scores.safetensors")
    assert str(loaded) == str(scores)
    assert loaded.means.keys() == scores.means.keys()
    for name in scores:
        assert torch.equal(loaded[name].values, scores[name].values)
        assert torch.equal(loaded[name].per_example.nan_to_num(), scores[name].per_example.nan_to_num())


def test_a_loss_without_a_gradient_at_the_dense_network_is_refused(network: sc.Network) -> None:
    """Ranking by it would be ranking by rounding errors."""
    inputs = [x for x, _ in batches()]

    def distance(output: Tensor, dense: Tensor) -> Tensor:
        return (output - dense).square().sum(1)

    with pytest.raises(sc.SecateurError, match="has no gradient at the dense network"):
        sc.score(network, inputs, by="taylor", loss=distance, progress=False)
    own_classes = sc.score(network, inputs, by="taylor", progress=False)
    assert float(own_classes["conv1"].values.min()) > 1e-6

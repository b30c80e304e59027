"""Taylor expansions of 2019, integrated gradients, the oracle and the other rankings by weights, each by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from random_plans import traced_without_options
from secateur.masking.batch_norms import norms_of
from small_network import Small, batches
from zoo import ZOO, grow

Loss = Callable[[Small, Tensor, Tensor], Tensor]
# Networks with operators that torch can't differentiate twice, and the criteria that ask for it.
SECOND = ("taylor-gates-second", "taylor-weights-second")


def distances_have_a_second_derivative() -> bool:
    """Return whether this version of torch differentiates `torch.cdist` twice, as it does since 2.15."""
    x = torch.rand(2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.cdist(x, torch.zeros(1, 3)).sum(), x, create_graph=True)
    try:
        torch.autograd.grad(slope.sum(), x)
    except RuntimeError:
        return False
    return True


NOT_TWICE = {"bags": SECOND[1:]} | (
    {} if distances_have_a_second_derivative() else {"products": SECOND, "weights of length 1": SECOND}
)


@pytest.fixture
def small() -> Small:
    torch.manual_seed(3)
    model = Small().eval()
    nn.init.uniform_(model.bn.weight, 0.5, 1.5)
    nn.init.normal_(model.bn.bias)
    return model


@pytest.fixture
def network(small: Small) -> sc.Network:
    return sc.trace(small, batches()[0][0])


def by_parameter(small: Small) -> list[dict[str, Tensor]]:
    """The gradient of every minibatch's mean loss by every parameter."""
    gradients = []
    for x, y in batches():
        small.zero_grad()
        F.cross_entropy(small(x), y).backward()
        gradients.append({name: p.grad.clone() for name, p in small.named_parameters() if p.grad is not None})
    small.zero_grad()
    return gradients


def test_first_order_on_weights(small: Small, network: sc.Network) -> None:
    scores = sc.score(network, batches(), by="taylor-weights", progress=False)
    for name, layer in (("conv1", small.conv1), ("conv2", small.conv2)):
        rows = [(g[f"{name}.weight"] * layer.weight).detach().square().flatten(1).sum(1) for g in by_parameter(small)]
        assert torch.allclose(scores[name].values, torch.stack(rows).mean(0).double(), rtol=1e-4)
        assert torch.allclose(scores[name].errors, torch.stack(rows).double().std(0) / 3**0.5, rtol=1e-3)


def test_gates_behind_batch_norms_are_gamma_and_beta(small: Small, network: sc.Network) -> None:
    """dE/dz = gamma dE/dgamma + beta dE/dbeta, to rounding; where there is no norm the gate closes the reader."""
    scores = sc.score(network, batches(), by="taylor-gates", progress=False)
    bn = small.bn
    rows = [(g["bn.weight"] * bn.weight + g["bn.bias"] * bn.bias).detach().square() for g in by_parameter(small)]
    assert torch.allclose(scores["conv1"].values, torch.stack(rows).mean(0).double(), rtol=1e-4)
    columns = [(g["fc.weight"] * small.fc.weight).detach().sum(0).square() for g in by_parameter(small)]
    assert torch.allclose(scores["conv2"].values, torch.stack(columns).mean(0).double(), rtol=1e-4)


def test_examples_are_squared_one_by_one(small: Small, network: sc.Network) -> None:
    one_by_one = [(x[i : i + 1], y[i : i + 1]) for x, y in batches() for i in range(len(x))]
    alone = sc.score(network, one_by_one, by="taylor-gates", progress=False)
    by_example = sc.score(network, batches(), by="taylor-gates-examples", progress=False)
    together = sc.score(network, batches(), by="taylor-gates", progress=False)
    for name in by_example:
        assert torch.allclose(alone[name].values, by_example[name].values, rtol=1e-4)
        assert bool(
            (together[name].values <= by_example[name].values * (1 + 1e-6)).all()
        )  # a square of means, by Jensen


class TwoViews(nn.Module):
    """Two views of each example go through the same layers, one behind the other along the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = F.silu(self.second(F.silu(self.first(torch.cat([x, y]))))).chunk(2)
        return self.last(first * second)


def test_examples_that_do_not_lie_together_are_squared_one_by_one() -> None:
    torch.manual_seed(0)
    x, y, target = torch.randn(5, 4), torch.randn(5, 4), torch.randint(2, (5,))
    network = sc.trace(TwoViews().eval(), (x, y))
    alone = [((x[[i]], y[[i]]), target[[i]]) for i in range(len(x))]
    expected = sc.score(network, alone, by="taylor-gates", progress=False)
    by_example = sc.score(network, [((x, y), target)], by="taylor-gates-examples", progress=False)
    for name in ("first", "second"):
        assert torch.allclose(by_example[name].values, expected[name].values, rtol=1e-4)


class Quadratic(nn.Module):
    """Squared error of a product of two layers: to second order in the last weights, nothing is left out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def regression(count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 4, generator=generator), torch.randn(count, 3, generator=generator)


def test_second_order_on_gates_is_the_oracle_where_the_loss_is_quadratic() -> None:
    model, data = Quadratic().eval(), [regression()]
    network = sc.trace(model, data[0][0])
    oracle = sc.score(network, data, by="oracle", ablation="zero", progress=False)["first"].values
    many = [data[0]] * 400  # the same minibatch again: the probes' noise averages out, the gradient stays
    second = sc.score(network, many, by="taylor-gates-second", progress=False)["first"].values
    first = sc.score(network, data, by="taylor-gates", progress=False)["first"].values
    assert torch.allclose(second, oracle, rtol=0.25, atol=float(oracle.max()) / 20)
    assert float((second - oracle).abs().sum()) < float((first - oracle).abs().sum()) / 3


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by torch.func.hessian
def test_second_order_on_weights_against_the_explicit_hessian() -> None:
    model, (x, y) = Quadratic().eval(), regression()
    network = sc.trace(model, x)
    values = sc.score(network, [(x, y)], by="taylor-weights-second", progress=False)["first"].values
    names = [name for name, _ in model.named_parameters()]
    weights = [parameter.detach() for parameter in model.parameters()]
    sizes = [weight.numel() for weight in weights]

    def loss(flat: Tensor) -> Tensor:
        parameters = [
            values_of_weight.view_as(w) for values_of_weight, w in zip(flat.split(sizes), weights, strict=True)
        ]
        return (torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,)) - y).square().mean()

    flat = torch.cat([weight.flatten() for weight in weights])
    slope, hessian = torch.func.grad(loss)(flat), torch.func.hessian(loss)(flat)
    changes = (flat * (slope - hessian @ flat / 2)).square()
    expected = changes[: weights[0].numel()].view(6, 4).sum(1)
    assert names[0] == "first.weight" and torch.allclose(values, expected.double(), rtol=1e-3)


def test_the_oracle_squares_what_real_removal_changes(small: Small, network: sc.Network) -> None:
    alone = sc.score(network, batches(), by="leave-one-out", progress=False)["conv1"]
    squared, absolute = (
        sc.score(network, batches(), by=by, progress=False)["conv1"] for by in ("oracle", "oracle-absolute")
    )
    assert torch.allclose(squared.values, alone.values.square())
    assert torch.allclose(absolute.values, alone.values.abs())
    assert torch.allclose(absolute.errors, alone.errors)


@pytest.mark.parametrize("removal", ["mean", "zero"])
def test_integrated_gradients_share_out_what_the_group_adds(network: sc.Network, removal: str) -> None:
    """They sum to v(all) - v(none), as Shapley values do, but for the rule's error at the corners of ReLUs."""
    paths = sc.score(network, batches(), by="integrated-gradients", ablation=removal, progress=False)
    exact = sc.score(network, batches(), estimator="exact", ablation=removal, aggregate="mean", progress=False)
    for name in paths:
        assert float(paths[name].values.sum()) == pytest.approx(float(exact[name].values.sum()), rel=0.02, abs=2e-3)


def test_integrated_gradients_are_shapley_values_of_quadratic_games() -> None:
    model, data = Quadratic().eval(), [regression()]
    network = sc.trace(model, data[0][0])
    paths = sc.score(network, data, by="integrated-gradients", ablation="zero", progress=False)["first"].values
    exact = sc.score(network, data, estimator="exact", ablation="zero", aggregate="mean", progress=False)[
        "first"
    ].values
    assert torch.allclose(paths, exact, rtol=1e-4, atol=1e-6)


def test_geometric_median_is_nearest_to_all_others(small: Small, network: sc.Network) -> None:
    values = sc.score(network, by="fpgm")["conv1"].values
    rows = small.conv1.weight.detach().double().flatten(1)
    expected = [sum((row - other).norm() for other in rows) for row in rows]
    assert torch.allclose(values, torch.stack(expected))
    with torch.no_grad():
        small.conv1.weight[1] = small.conv1.weight.mean(0)
    assert int(sc.score(sc.trace(small, batches()[0][0]), by="fpgm")["conv1"].values.argmin()) == 1


def test_scales_of_batch_norms(small: Small, network: sc.Network) -> None:
    values = sc.score(network, by="batchnorm-scale", only="conv1")["conv1"].values
    assert torch.allclose(values, small.bn.weight.detach().abs().double())
    with pytest.raises(sc.SecateurError, match=r"behind conv2.*skip conv2"):
        sc.score(network, by="batchnorm-scale")


def test_a_fixed_batch_size_is_refused_where_examples_must_be_apart() -> None:
    model, example = grow("fixed batch")
    network = sc.trace(model, example)
    assert network.program.batched is None
    for by in ("taylor-gates-examples", "integrated-gradients"):
        with pytest.raises(sc.SecateurError, match="fixes its batch size"):
            sc.score(network, example, by=by, progress=False)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_gates_can_be_put_on_every_network(name: str) -> None:
    """A loss that every output can be judged by, to second order, on the whole zoo."""
    _, _, network = traced_without_options(name)

    def size(output: object, _: object) -> Tensor:
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        first = next(leaf for leaf in leaves if leaf.is_floating_point())
        examples = network.example.size or 1
        return first.transpose(0, 1).reshape(examples, -1).square().sum(1) if len(first) != examples else (
            first.reshape(examples, -1).square().sum(1)
        )  # fmt: skip

    for by in SECOND:
        if by in NOT_TWICE.get(name, ()):
            with pytest.raises(sc.SecateurError, match="can't differentiate an operator of the network"):
                sc.score(network, network.example, by=by, loss=size, progress=False)
            continue
        scores = sc.score(network, network.example, by=by, loss=size, progress=False)
        assert all(bool(torch.isfinite(scores[group.name].values).all()) for group in network.groups)
    assert all(len(units) for units in norms_of(network).values())


def test_squares_of_changes_in_half_precision_do_not_underflow() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(8, 4), torch.randn(8, 3)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return 1e-3 * (output - target).square().mean(1)

    def scores(network: nn.Module, dtype: torch.dtype) -> Tensor:
        data = [(x.to(dtype), y.to(dtype))]
        traced = sc.trace(network.to(dtype), data)
        return sc.score(traced, data, by="taylor-weights", loss=loss, progress=False)["0"].values

    assert torch.allclose(scores(model, torch.half), scores(model, torch.float), rtol=0.1)

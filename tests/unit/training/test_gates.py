"""One gate per unit, against networks that hold the gates as parameters, as the authors' own code does."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.coupling.plan import Plan
from secateur.masking.gate_positions import gate_positions
from secateur.training.gate_gradients import TrainingGateGradients
from staged_network import Block, Stages, identity, minibatches


def explicit_gates(model: Stages, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients by gates that multiply in the model's own forward. One for each stage, whoever uses it."""
    gates: dict[str, Tensor] = {}

    def gate(name: str, x: Tensor) -> Tensor:
        gates.setdefault(name, torch.ones(x.shape[1], requires_grad=True))
        return x * gates[name].view(1, -1, 1, 1)

    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        block.gate = gate
    loss = F.cross_entropy(model(x), y)
    for block in blocks:
        block.gate = identity
    slopes = dict(zip(gates, torch.autograd.grad(loss, list(gates.values())), strict=True))
    names = {f"inner {id(block)}": name for name, block in model.named_modules() if block in blocks}
    return {f"{names[name]}.conv1" if name in names else name: slope for name, slope in slopes.items()}


GROUPS = {"stem": "one", "two.0.conv2": "two"}  # the group that each stage's units are


@pytest.mark.parametrize("activation", [F.relu, F.silu])
def test_a_stage_has_one_gate_behind_every_block(activation: Callable[[Tensor], Tensor]) -> None:
    """Derivatives of all blocks add, are squared for each minibatch, and divided by the number of blocks."""
    model = Stages(activation).eval()
    network = sc.trace(model, minibatches()[0][0])
    scores = sc.score(network, minibatches(), by="taylor-gates", progress=False)
    slopes = [explicit_gates(model, x, y) for x, y in minibatches()]
    assert {group.name for group in network.groups} == {*GROUPS, *(n for n in slopes[0] if n.endswith("conv1"))}
    for group in network.groups:
        name, blocks = GROUPS.get(group.name, group.name), 2 if group.name in GROUPS else 1
        expected = torch.stack([slopes_of_gates[name].double().square() for slopes_of_gates in slopes]).mean(0) / blocks
        assert torch.allclose(scores[group.name].values, expected, rtol=1e-4, atol=1e-12), group.name


def test_gates_of_their_own_behind_each_norm_are_averaged_after_squaring() -> None:
    """The stream's units are made by the stem's batch norm and by the second one of each block."""
    model = Stages().eval()
    network = sc.trace(model, minibatches()[0][0])
    values = sc.score(network, minibatches(1), by="taylor-gates-norms", progress=False)["stem"].values
    x, y = minibatches(1)[0]
    F.cross_entropy(model(x), y).backward()
    norms = [model.bn, model.one[0].bn2, model.one[1].bn2]
    slopes = [(n.weight * n.weight.grad + n.bias * n.bias.grad).detach().square() for n in norms]
    assert torch.allclose(values, torch.stack(slopes).mean(0).double(), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by torch.func.hessian
@pytest.mark.parametrize(("group", "gate", "count"), [("stem", "one", 2), ("one.1.conv1", "inner", 1)])
def test_the_exact_diagonal_is_that_of_the_hessian_by_explicit_gates(group: str, gate: str, count: int) -> None:
    """With tanh, which has curvature; each minibatch with its own Hessian."""
    model = Stages(torch.tanh).eval()
    network = sc.trace(model, minibatches()[0][0])
    data = minibatches(2)
    scores = sc.score(network, data, by="taylor-gates-second", estimator="exact", only=group, progress=False)
    blocks = list(model.one) if count == 2 else [model.one[1]]
    changes = []
    for x, y in data:

        def loss(gates: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            for block in blocks:
                block.gate = lambda name, z: z * gates.view(1, -1, 1, 1) if name.startswith(gate) else z
            value = F.cross_entropy(model(x), y)
            for block in blocks:
                block.gate = identity
            return value

        ones = torch.ones(network[group].size)
        slope, hessian = torch.func.grad(loss)(ones), torch.func.hessian(loss)(ones)
        changes.append((hessian.diagonal() / 2 - slope).square() / count)
    assert torch.allclose(scores[group].values, torch.stack(changes).mean(0).double(), rtol=1e-3)
    estimated = sc.score(network, data, by="taylor-gates-second", only=group, progress=False)
    assert not torch.allclose(estimated[group].values, scores[group].values, rtol=1e-3)


def test_gates_before_norms_are_sums_over_filters() -> None:
    """(sum of g w over the filter)^2; the mean of the squares where several convolutions write into a stage."""
    model = Stages().eval()
    network = sc.trace(model, minibatches()[0][0])
    scores = sc.score(network, minibatches(), by="taylor-gates-before-norm", progress=False)
    expected: dict[str, list[Tensor]] = {"one.0.conv1": [], "stem": []}
    for x, y in minibatches():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        sums = {
            name: (module.weight * module.weight.grad).detach().double().flatten(1).sum(1)
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        sums["stem"] += (model.stem.bias * model.stem.bias.grad).detach()
        expected["one.0.conv1"].append(sums["one.0.conv1"].square())
        writers = torch.stack([sums["stem"], sums["one.0.conv2"], sums["one.1.conv2"]])
        expected["stem"].append(writers.square().mean(0))
    for name, squares in expected.items():
        assert torch.allclose(scores[name].values, torch.stack(squares).mean(0), rtol=1e-3), name


def test_training_reads_the_same_gates_from_gradients() -> None:
    """In training mode, where batch norms take each minibatch's own statistics."""
    model = Stages()
    network = sc.trace(model, minibatches()[0][0])
    slopes = TrainingGateGradients(network, list(network.groups))
    model.train()
    for x, y in minibatches():
        expected = explicit_gates(model, x, y)
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        squares = slopes.squares(dict(model.named_parameters()))
        assert set(squares) == {group.name for group in network.groups}
        for name, values in squares.items():
            blocks = 2 if name in GROUPS else 1
            square = expected[GROUPS.get(name, name)].double().square() / blocks
            assert torch.allclose(values, square, rtol=1e-3, atol=1e-5 * float(square.max())), name


class Variants(nn.Module):
    """A stream that convolutions without norms write, scaled, shrunk, padded, and with an attention over channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(4, 3), nn.Linear(3, 4)
        self.wide_inner, self.wide_outer = nn.Conv2d(4, 6, 3, 2, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x))
        x = F.relu((x + self.outer(F.relu(self.inner(x)))) / 2**0.5)
        weights = self.excite(F.relu(self.squeeze(x.mean((2, 3)))))
        x = x * torch.sigmoid(weights)[:, :, None, None]
        y = self.wide_outer(F.relu(self.wide_inner(x)))
        return self.fc(F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + y).mean((2, 3)))


def test_streams_of_other_kinds_are_read_alike() -> None:
    model = Variants().eval()
    network = sc.trace(model, minibatches()[0][0])
    assert len(gate_positions(network).blocks) == 2
    slopes = TrainingGateGradients(network, list(network.groups))
    scores = sc.score(network, minibatches(1), by="taylor-gates", progress=False)
    x, y = minibatches(1)[0]
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    squares = slopes.squares(dict(model.named_parameters()))
    assert set(squares) == set(scores) and not bool(slopes._at_consumers[network["stem"].span].any())
    for name, values in squares.items():
        assert torch.allclose(values, scores[name].values, rtol=1e-3, atol=1e-5 * float(values.max())), name


def test_where_gradients_do_not_tell_the_gate_it_stands_before_the_readers() -> None:
    """A SiLU behind the addition: what its input is worth does not follow from what its output is."""
    model = Stages(F.silu).eval()
    network = sc.trace(model, minibatches()[0][0])
    x, y = minibatches(1)[0]
    F.cross_entropy(model(x), y).backward()
    values = TrainingGateGradients(network, list(network.groups)).squares(dict(model.named_parameters()))["two.0.conv2"]
    columns = model.fc.weight * model.fc.weight.grad
    kernels = model.two[1].conv1.weight * model.two[1].conv1.weight.grad
    expected = (columns.sum(0) + kernels.sum((0, 2, 3))).detach().double().square()
    assert torch.allclose(values, expected, rtol=1e-4)


def test_a_sum_that_a_batch_norm_reads_has_its_gate_before_the_readers() -> None:
    """Pre-activation: what is cut is the unit behind the norm, not its share in the sum."""

    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn1, self.conv1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)
            self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1)
            self.bn, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
            return self.fc(F.relu(self.bn(x)).mean((2, 3)))

    network = sc.trace(PreActivation().eval(), torch.randn(2, 3, 8, 8))
    positions = gate_positions(network)
    assert not positions.blocks and bool(positions.at_readers[network["stem"].span].all())
    assert [bool(positions.at_readers[network[name].span].any()) for name in ("stem", "conv1")] == [True, False]


def test_a_function_of_a_unit_added_to_it_is_no_block() -> None:
    """The usual approximation of GELU adds a cube."""

    class Gelu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(0.5 * x * (1 + torch.tanh(0.8 * (x + 0.045 * x**3))))

    network = sc.trace(Gelu().eval(), torch.randn(2, 4))
    assert network["first"].kind == "neurons" and not network.additions


def test_the_oracle_is_the_squared_change_of_the_loss_by_a_real_cut() -> None:
    """Each channel of a stage and of a block's inside is cut out of the model itself."""
    model, (x, y) = Stages().eval(), minibatches(1)[0]
    network = sc.trace(model, x)
    oracle = sc.score(network, [(x, y)], by="oracle", ablation="zero", only=["stem", "two.0.conv1"], progress=False)
    for name in oracle:
        size, changes = network[name].size, []
        for unit in range(size):
            kept = {name: torch.tensor([other for other in range(size) if other != unit])}
            plan = Plan(network, kept, {}, network.cost(kept), network.cost(), {"units": 1.0})
            with torch.no_grad():
                changes.append(float(F.cross_entropy(sc.cut(model, plan)(x), y) - F.cross_entropy(model(x), y)))
        assert torch.allclose(oracle[name].values, torch.tensor(changes).double().square(), rtol=1e-3, atol=1e-9)

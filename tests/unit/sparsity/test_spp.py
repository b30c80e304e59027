"""SPP: chances as the paper has them, masks that a training can't move, the same after a kill, columns that go."""

import io
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.sparsity import load_fast
from secateur.sparsity import spp as pruned_by_spp
from secateur.sparsity.packed_layers.gathered_conv import GatheredConv2d, density, gathered
from secateur.sparsity.spp.columns import Columns
from secateur.sparsity.spp.probabilities import increments
from secateur.sparsity.spp.spp import SPP
from zoo import grow


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm, self.third, self.fc = nn.BatchNorm2d(12), nn.Conv2d(12, 6, 3, stride=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.second(F.relu(self.first(x)))))
        return self.fc(F.relu(self.third(x)).mean((2, 3)))


def start(seed: int = 0, **options: Any) -> tuple[Net, torch.optim.Optimizer, SPP]:
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-3)
    settings = {"keep": {"columns": 0.5}, "every": 2, **options}
    return model, optimizer, SPP(model, torch.randn(2, 1, 9, 9), optimizer, **settings)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int, portions: int = 1) -> None:
    for step in range(first, last):
        draws = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 1, 9, 9, generator=draws), torch.randint(0, 4, (8,), generator=draws)
        optimizer.zero_grad()
        for inputs, labels in zip(x.chunk(portions), y.chunk(portions), strict=True):
            (F.cross_entropy(model(inputs), labels) / portions).backward()
        optimizer.step()


def until_done(model: nn.Module, optimizer: torch.optim.Optimizer, spp: SPP) -> int:
    step = 0
    while not spp.is_finished and step < 1000:
        steps(model, optimizer, step, step + 1)
        step += 1
    return step


def test_steps_of_the_chances_as_the_paper_has_them() -> None:
    """A at the weakest, u A at the turning point, nothing at the n-th, and as much below nothing behind it."""
    count = 12
    turn = -math.log(0.25) / ((math.log(2) - math.log(0.25)) / count)
    steps_of_chances = increments(torch.tensor([0.0, turn, count, 2 * turn]), count)
    assert steps_of_chances.tolist() == pytest.approx([0.05, 0.0125, 0.0, 2 * 0.25 * 0.05 - 0.05], abs=1e-12)
    curve = increments(torch.arange(200).double(), count)
    assert bool((curve[1:] <= curve[:-1]).all()) and bool(torch.isfinite(curve).all())


def test_what_is_masked_takes_no_part_and_is_not_moved() -> None:
    """Neither by its gradient nor by momentum nor by weight decay, over many steps."""
    model, optimizer, spp = start(every=1000)
    for columns in spp.columns:
        columns.chances.fill_(0.5)
    for step in range(6):
        masked = {columns.layer.name: columns.masked.clone() for columns in spp.columns}
        before = {columns.layer.name: columns.unmasked_weight.clone() for columns in spp.columns}
        for columns in spp.columns:
            assert float(columns.weight.detach()[columns.masked_entries()].abs().sum()) == 0
        steps(model, optimizer, step, step + 1)
        for columns in spp.columns:
            gone = masked[columns.layer.name][columns.group]
            now, then = (
                columns.layer.matrix(weight)[0]
                for weight in (columns.unmasked_weight.detach(), before[columns.layer.name])
            )
            assert torch.equal(now[:, gone], then[:, gone])
            assert step == 0 or bool((now[:, ~gone] != then[:, ~gone]).any())
    assert 0.3 < float(torch.cat([columns.masked for columns in spp.columns]).double().mean()) < 0.7


def test_masks_hold_through_an_accumulated_minibatch() -> None:
    """The same gradients from one batch of eight as from four of two, in evaluation of the norm's statistics."""
    one, other = start(), start()
    for (model, optimizer, spp), portions in ((one, 1), (other, 4)):
        model.norm.eval()
        for columns in spp.columns:
            columns.chances.fill_(0.4)
        steps(model, optimizer, 0, 3, portions)
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_weak_column_goes_and_one_that_was_weak_by_accident_recovers() -> None:
    model, optimizer, spp = start(every=1)
    second = spp.columns[0]
    weak, strong = (int(index) for index in second.norms().argsort()[[0, -1]])
    second.chances[strong] = 0.6
    steps(model, optimizer, 0, 1)
    assert float(second.chances[weak]) == pytest.approx(0.05)
    assert float(second.chances[strong]) < 0.6
    until_done(model, optimizer, spp)
    assert bool(second.pruned[weak]) and not bool(second.pruned[strong])


@pytest.mark.parametrize("groups", ["columns", "channels"])
def test_every_layer_ends_at_its_ratio_is_scaled_once_and_is_free_at_once(groups: str) -> None:
    """While the other layer goes on: nothing but what is gone for good is masked from then on."""
    model, optimizer, spp = start(groups=groups, keep={"columns": 0.4}, ratios={"third": 0.25}, every=1)
    finish, ended = Columns.finish, {}

    def watched(self: Columns) -> None:
        chance, weight = self.chances.clone(), self.unmasked_weight.clone()
        finish(self)
        assert self.layer.name not in ended
        expected = self.layer.matrix(weight)[0] * (1 - chance)[self.group].float()
        assert torch.allclose(self.layer.matrix(self.weight.detach())[0], expected, atol=1e-7)
        ended[self.layer.name] = (spp.steps, self.masked.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Columns, "finish", watched)
        while not spp.is_finished and spp.steps < 1000:
            steps(model, optimizer, spp.steps, spp.steps + 1)
            for columns in spp.columns:
                if columns.layer.name in ended:
                    assert torch.equal(columns.masked, ended[columns.layer.name][1])
    assert set(ended) == {"second", "third"} and ended["second"][0] != ended["third"][0]
    assert max(step for step, _ in ended.values()) == spp.steps < 1000
    for columns, ratio in zip(spp.columns, (0.6, 0.25), strict=True):
        assert int(columns.pruned.sum()) == math.ceil(ratio * len(columns.chances) - 1e-9)
    steps(model, optimizer, 1000, 1004)
    assert all(torch.equal(ended[columns.layer.name][1], columns.masked) for columns in spp.columns)


def macs_of(model: nn.Module, x: Tensor) -> int:
    """Multiply-adds by the weights that are not zero, counted at each layer's result."""
    counts = []

    def count(module: Any, _: Any, result: Tensor) -> None:
        positions = result[0, 0].numel() if result.dim() == 4 else 1
        counts.append(int((module.weight != 0).sum()) * positions)

    hooks = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def test_a_budget_of_macs_is_met() -> None:
    x = torch.randn(1, 1, 9, 9)
    dense = macs_of(Net(), x)
    model, optimizer, spp = start(keep={"macs": 0.6}, every=1)
    until_done(model, optimizer, spp)
    macs = macs_of(spp.finish().model, x)
    assert macs <= 0.6 * dense < macs + 2 * 12 * 81 + 2 * 6 * 16


def test_layers_that_have_their_own_ratio_leave_the_budget_to_the_others() -> None:
    """A third layer that loses less than the others makes them lose more."""
    x = torch.randn(1, 1, 9, 9)
    dense = macs_of(Net(), x)
    model, optimizer, spp = start(keep={"macs": 0.6}, ratios={"third": 0.05}, every=1)
    until_done(model, optimizer, spp)
    result = spp.finish()
    assert result.columns["third"] == (108, 108 - math.ceil(0.05 * 108))
    assert macs_of(result.model, x) <= 0.6 * dense
    with pytest.raises(sc.SecateurError, match=r"can't be met.*left out: first \(it is the first"):
        start(keep={"macs": 0.3}, ratios={"second": 0.05})


def test_filters_that_nobody_reads_count_towards_the_budget() -> None:
    """With whole channels as groups, each that goes takes a filter of the layer before with it: the run ends earlier
    than the ratio of columns asks for."""
    x = torch.randn(1, 1, 9, 9)
    dense = macs_of(Net(), x)
    model, optimizer, spp = start(keep={"macs": 0.5}, groups="channels", every=1)
    until_done(model, optimizer, spp)
    assert any(columns.missing > 0 for columns in spp.columns)
    assert all(torch.equal(columns.chances, columns.pruned.double()) for columns in spp.columns)
    macs = macs_of(spp.finish().model, x)
    assert macs <= 0.5 * dense < macs + 0.25 * dense


class AlexLike(nn.Module):
    """Five convolutions, three of them in two groups, as in AlexNet."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 5, stride=2), nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.conv3, self.conv4 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.conv5, self.fc = nn.Conv2d(16, 8, 3, padding=1, groups=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2)))
        return self.fc(F.relu(self.conv5(F.relu(self.conv4(F.relu(self.conv3(x)))))).mean((2, 3)))


def test_grouped_convolutions_lose_the_same_columns_in_all_groups() -> None:
    """A network like AlexNet reaches 2x, computes what it did when it is cut, and what is gathered does, too."""
    model, x = AlexLike(), torch.randn(2, 3, 23, 23)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    spp = SPP(model, x, optimizer, {"macs": 0.5}, every=1)
    assert [columns.layer.name for columns in spp.columns] == ["conv2", "conv3", "conv4", "conv5"]
    second = spp.columns[0]
    by_hand = [
        sum(float(model.conv2.weight[filter_, channel, row, column].abs()) for filter_ in range(16))
        for channel, row, column in itertools.product(range(4), range(3), range(3))
    ]
    assert second.norms().tolist() == pytest.approx(by_hand)
    while not spp.is_finished and spp.steps < 1000:
        optimizer.zero_grad()
        model(torch.randn(4, 3, 23, 23)).square().mean().backward()
        optimizer.step()
    for name in ("conv2", "conv4", "conv5"):
        weight = model.get_submodule(name).weight.detach()
        halves = [half.abs().sum(0) == 0 for half in weight.chunk(2)]  # (channels, 3, 3): a column of one group
        assert torch.equal(halves[0], halves[1]) and bool(halves[0].any())
    model.eval()
    dense, before = macs_of(AlexLike(), x[:1]), model(x)
    result = spp.finish()
    assert macs_of(result.model, x[:1]) <= 0.5 * dense
    assert torch.allclose(result.model(x), before, atol=1e-5)
    fast = gathered(result.model, below=0.9)
    assert isinstance(fast.conv2, GatheredConv2d) and torch.allclose(fast(x), before, atol=1e-5)


def test_spp_refuses_an_optimizer_of_another_model() -> None:
    """Its steps would never train what is pruned; one that lacks a single layer is refused as well."""
    model, other = Net(), Net()
    with pytest.raises(sc.SecateurError, match="this SGD does not hold second and 1 further weight of this model"):
        SPP(model, torch.randn(2, 1, 9, 9), torch.optim.SGD(other.parameters(), 0.1), {"columns": 0.5})
    some = [parameter for name, parameter in model.named_parameters() if name != "third.weight"]
    with pytest.raises(sc.SecateurError, match="does not hold third of this model"):
        SPP(model, torch.randn(2, 1, 9, 9), torch.optim.SGD(some, 0.1), {"columns": 0.5})
    SPP(model, torch.randn(2, 1, 9, 9), torch.optim.SGD(some, 0.1), {"columns": 0.5}, skip=("first", "third"))


def test_a_model_and_data_are_enough_and_the_report_counts_what_is_left(tmp_path: Path) -> None:
    x, model = torch.randn(32, 1, 9, 9), Net().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = pruned_by_spp(model, (x, torch.arange(32) % 4), {"macs": 0.6}, every=1, tuning_steps=5, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = result.report
    assert report.dense.cost.macs == macs_of(Net(), x[:1]) and report.pruned.cost.macs == macs_of(result.model, x[:1])
    assert report.pruned.cost.macs <= 0.6 * report.dense.cost.macs
    assert report.dense.accuracy is not None and report.sparsity.layers["third.weight"].structure.endswith("columns")
    result.save(tmp_path)
    assert torch.equal(sc.load(Net(), tmp_path)(x), result.model.eval()(x))
    (tmp_path / "kernels.json").write_text((tmp_path / "kernels.json").read_text().replace("dense", "tiles"))
    fresh = Net()
    with pytest.raises(sc.SecateurError, match=r"checksum|altered"):
        load_fast(fresh, tmp_path)
    assert fresh.second.weight.shape == before["second.weight"].shape


def test_kernels_are_read_back_without_timing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was fastest when it was saved."""
    monkeypatch.setattr("secateur.evaluation.kernel_selection.select_kernel", lambda makers, x: _last(makers))
    x, model = torch.randn(8, 1, 9, 9), Net().eval()
    result = pruned_by_spp(model, x, {"columns": 0.5}, every=1, tuning_steps=2, progress=False)
    result.save(tmp_path)
    assert set(result.fast.kernels.values()) == {"gathered"}
    fast = load_fast(Net(), tmp_path)
    assert isinstance(fast.second, GatheredConv2d) and isinstance(fast.third, GatheredConv2d)
    assert torch.allclose(fast(x), result.model(x), atol=1e-5)


def _last(makers: Any) -> Any:
    *_, name = makers
    return name, makers[name](), dict.fromkeys(makers, 1.0)


def test_options_are_checked_before_anything_is_done() -> None:
    with pytest.raises(sc.SecateurError, match="`SPP` has no option 'evry'; did you mean 'every'"):
        start(evry=3)
    with pytest.raises(sc.SecateurError, match=r"model is a OrderedDict, not a torch\.nn\.Module"):
        SPP(Net().state_dict(), torch.randn(2, 1, 9, 9), torch.optim.SGD(Net().parameters(), 0.1), {"columns": 0.5})


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_killed_training_goes_on_to_the_same_masks(stop: int) -> None:
    whole, optimizer, spp = start()
    steps(whole, optimizer, 0, 12)
    first, other, before = start()
    steps(first, other, 0, stop)
    saved = io.BytesIO()
    torch.save([first.state_dict(), other.state_dict(), before.state_dict()], saved)
    saved.seek(0)
    states = torch.load(saved, weights_only=True)
    resumed, third, after = start(seed=5)
    resumed.load_state_dict(states[0])
    third.load_state_dict(states[1])
    after.load_state_dict(states[2])
    steps(resumed, third, stop, 12)
    for a, b in zip(spp.columns, after.columns, strict=True):
        assert (
            torch.equal(a.masked, b.masked)
            and torch.equal(a.chances, b.chances)
            and torch.equal(a.unmasked_weight, b.unmasked_weight)
        )
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_step_that_a_fused_optimizer_skips_draws_no_masks() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    spp = SPP(model, torch.randn(2, 1, 9, 9), optimizer, {"columns": 0.5}, every=1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    before, state = model.second.weight.detach().clone(), spp.draws.get_state()
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert spp.steps == 0 and torch.equal(model.second.weight, before) and torch.equal(spp.draws.get_state(), state)


def test_a_state_of_another_network_is_refused() -> None:
    _, _, spp = start()
    state = spp.state_dict()
    state["layers"]["second.weight"]["held"] = torch.zeros(1)
    with pytest.raises(sc.SecateurError, match="no such layer as second"):
        spp.load_state_dict(state)


def test_scaled_steps_that_are_skipped_count_for_nothing_and_nan_stops() -> None:
    model, optimizer, spp = start()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(4, 1, 9, 9)).square().mean() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert spp.steps == 1
    optimizer.zero_grad()
    (model(torch.randn(4, 1, 9, 9)).mean() * float("nan")).backward()
    with pytest.raises(sc.SecateurError, match="step 2 is NaN or infinite in second"):
        optimizer.step()


def test_channels_that_nobody_reads_are_cut_and_the_network_stays_the_same(tmp_path: Path) -> None:
    model, optimizer, spp = start(groups="channels", keep={"columns": 0.5}, every=1)
    until_done(model, optimizer, spp)
    steps(model, optimizer, 200, 203)
    model.eval()
    x = torch.randn(3, 1, 9, 9)
    before = model(x)
    result = spp.finish()
    assert result.model.first.weight.shape[0] == 4 and result.model.second.weight.shape[0] == 6
    assert torch.allclose(result.model(x), before, atol=1e-5)
    assert result.columns["second"] == (72, 36) and "units" in str(result)
    result.save(tmp_path)
    assert torch.equal(sc.load(Net().eval(), tmp_path)(x), result.model(x))


def test_it_cant_be_finished_before_its_time() -> None:
    with pytest.raises(sc.SecateurError, match="train on until"):
        start()[2].finish()


class Stream(nn.Module):
    """A block on a stream, whose sum only the head reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.first = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.second, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(x + self.second(self.first(x).relu())).mean((2, 3))


def test_filters_that_nobody_reads_are_zero_where_others_write_into_their_channel() -> None:
    """The block reads the channel, the head does not: what the block adds to it is needless, and counts as gone."""
    model, x = Stream(), torch.randn(2, 1, 6, 6)
    spp = SPP(model, x, torch.optim.SGD(model.parameters(), 0.1), {"columns": 0.75}, every=1)
    with torch.no_grad():
        spp.columns[-1].chances[1] = 1.0
        for columns in spp.columns:
            columns.finish()
    spp.is_finished = True
    before = model(x)
    result = spp.finish()
    assert float(result.model.second.weight[1].abs().sum()) == 0 and result.model.stem.weight.shape[0] == 4
    assert torch.allclose(result.model(x), before, atol=1e-6)


@pytest.mark.parametrize("keep", [{"columns": 0.5}, {"macs": 0.5}])
def test_residual_networks_need_no_coupling(keep: dict[str, float]) -> None:
    model, example = grow("residual")
    dense = macs_of(model, example[:1])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    spp = SPP(model, example, optimizer, keep, groups="columns" if "columns" in keep else "channels", every=1)
    for _ in range(1000):
        if spp.is_finished:
            break
        optimizer.zero_grad()
        model(example).square().mean().backward()
        optimizer.step()
    model.eval()
    before = model(example)
    result = spp.finish()
    assert torch.allclose(result.model(example), before, atol=1e-5)
    assert "macs" not in keep or macs_of(result.model, example[:1]) <= 0.5 * dense
    assert torch.allclose(gathered(result.model, below=0.9)(example), before, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"macs": 0.001}}, "can't be met"),
        ({"keep": {"params": 0.5}}, "give {'macs': 0.5}"),
        ({"keep": None}, "neither keep= nor ratios= is given"),
        ({"groups": "rows"}, "groups are columns or channels"),
        ({"skip": "nowhere"}, "matches no convolution"),
        ({"skip": "*"}, "no convolution whose columns can be pruned"),
        ({"ratios": {"fourth": 0.5}}, "matches no convolution to prune; the nearest are third"),
        ({"ratios": {"third": 1.0}}, "columns to prune, below 1"),
    ],
)
def test_bad_input_of_spp(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        start(**options)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": "same", "dilation": 2},
        {"stride": 2, "padding": (2, 1), "bias": False},
        {"padding": 1, "padding_mode": "reflect", "stride": (1, 2)},
        {"padding": "valid"},
    ],
)
def test_gathered_convolutions_compute_what_the_dense_one_does(options: dict[str, Any], groups: int) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(6, 6, 3, groups=groups, **options)
    with torch.no_grad():
        dense.weight.mul_(torch.rand(1, 6 // groups, 3, 3) < 0.25)
    x = torch.randn(2, 6, 11, 13)
    layer = GatheredConv2d(dense)
    assert layer.weight.shape[1] == round(density(dense) * 54 / groups)
    assert torch.allclose(layer(x), dense(x), atol=1e-5)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert torch.allclose(layer(x[0]), dense(x[0]), atol=1e-5)
    model = nn.Sequential(dense, nn.Conv2d(6, 5, 3))
    small = gathered(model, below=0.5)
    assert isinstance(small[0], GatheredConv2d) and type(small[1]) is nn.Conv2d and type(model[0]) is nn.Conv2d


class Bare(nn.Module):
    """Two weights of one module that are no layers of torch's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3)
        self.one, self.two = nn.Parameter(torch.randn(4, 4, 3, 3)), nn.Parameter(torch.randn(2, 4, 3, 3))
        self.b1, self.b2 = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(self.stem(x).relu(), self.one, self.b1).relu(), self.two, self.b2)


def test_layers_are_named_by_their_weights_where_a_module_has_several() -> None:
    model = nn.Sequential(Bare())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    spp = SPP(model, torch.randn(2, 1, 9, 9), optimizer, ratios={"0.one": 0.5, "0.two": 0.25}, every=1)
    while not spp.is_finished:
        optimizer.zero_grad()
        model(torch.randn(2, 1, 9, 9)).square().mean().backward()
        optimizer.step()
    assert spp.finish().columns == {"0.one": (36, 18), "0.two": (36, 27)}


class Mixed(nn.Module):
    """Convolutions of every kind, one by a parameter of the model's own, without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.twice = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.first(x).relu()).relu()
        x = nn.functional.conv2d(x, self.kernel, padding=1).relu()
        x = self.up(self.plain(x).relu()).relu()
        return self.twice(self.twice(x).relu()).mean((2, 3))


def test_what_is_not_pruned_is_named_with_its_reason() -> None:
    torch.manual_seed(0)
    model = Mixed()
    spp = SPP(model, torch.randn(2, 1, 8, 8), torch.optim.SGD(model.parameters(), 0.01), {"columns": 0.5}, every=1)
    pruned = {columns.layer.name for columns in spp.columns}
    assert "plain" in pruned
    assert pruned | set(spp.left_out) >= {"first", "depthwise", "plain", "up", "twice"}
    assert not pruned & set(spp.left_out)
    assert spp.left_out["first"] == "it is the first, or among those to skip"
    assert spp.left_out["depthwise"] == "it is depthwise: it has no input channels to sum"
    assert spp.left_out["up"] == "it is transposed"
    assert "no parameter of its own" in spp.left_out["twice"]
    print(pruned, spp.left_out)


def test_a_state_with_the_former_name_of_its_end_is_loaded() -> None:
    model, x = Stream(), torch.randn(2, 1, 6, 6)
    spp = SPP(model, x, torch.optim.SGD(model.parameters(), 0.1), {"columns": 0.75}, every=1)
    state = spp.state_dict()
    state["done"] = not state.pop("is_finished")
    spp.load_state_dict(state)
    assert spp.is_finished

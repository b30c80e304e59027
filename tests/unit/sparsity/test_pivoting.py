"""Matrix pivoting: the search on matrices whose answer is known, folded orders, packed blocks, gathers if needed."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from copied_traces import copies_traced_once
from expected_warnings import unread_targets
from pivoted_networks import PivotedLayers
from random_plans import traced_without_options
from secateur.graph.parametrizations import bake_parametrizations
from secateur.sparsity import load_fast
from secateur.sparsity.pivoting.orders import fold_orders
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.result import load_pivoted
from zoo import ZOO, grow


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"head width", "experts", "routed"}))
def test_folded_orders_leave_every_network_as_it_was(name: str) -> None:
    """Or it is refused, and nothing is changed: channels that are shuffled by place depend on their order."""
    dense, _, network = traced_without_options(name)
    model, batch = copy.deepcopy(bake_parametrizations(dense)), network.example
    with torch.no_grad():
        before = _leaves(model(*batch.args, **batch.kwargs))
    draws = np.random.default_rng(0)
    orders = {group.name: draws.permutation(group.size) for group in network.groups}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        fold_orders(model, network, orders)
    except sc.SecateurError as refusal:
        assert "depends on the order" in str(refusal)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
        return
    with torch.no_grad():
        after = _leaves(model(*batch.args, **batch.kwargs))
    for a, b in zip(after, before, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-3, atol=2e-2 if b.dtype != torch.float32 else 1e-4)


def _leaves(output: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"head width", "experts", "routed"}))
@unread_targets
def test_every_network_can_be_pivoted_or_says_why_not(name: str) -> None:
    model, example = grow(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if name == "local responses":
        with pytest.raises(sc.SecateurError, match="depends on the order of its units"):
            pivot(model, example, 0.5, shape=(2, 2), skip=(), starts=1)
    else:
        with copies_traced_once(name):
            pivoted = pivot(model, example, 0.5, shape=(2, 2), skip=(), starts=1)
        packed, kernels = pivoted.packed(pivoted.network.example)
        assert set(kernels) == set(pivoted.layers)
        batch = pivoted.network.example
        with torch.no_grad():
            pairs = zip(*(_leaves(m(*batch.args, **batch.kwargs)) for m in (packed, pivoted.model)), strict=True)
        assert all(torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3, equal_nan=True) for a, b in pairs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_that_are_nan_are_refused_by_name() -> None:
    model = PivotedLayers()
    with torch.no_grad():
        model.b.weight[0, 0] = torch.inf
    with pytest.raises(sc.SecateurError, match=r"b\.weight has 1 entries that are NaN or infinite"):
        pivot(model, torch.randn(2, 40), 0.5)


def test_zeros_outside_of_the_blocks_and_the_rest_as_it_was() -> None:
    model, x = PivotedLayers().eval(), torch.randn(6, 40)
    pivoted = pivot(model, x, 1.0, shape=(6, 6))
    assert torch.allclose(pivoted.model(x), model(x), atol=1e-5)  # density 1: another order, nothing else
    half = pivot(model, x, 0.5, shape=(6, 6))
    for name, layer in half.layers.items():
        weight = half.model.get_parameter(name)
        ordered = weight if layer.gather is None else weight[:, layer.gather]
        mask = layer.blocks.repeat_interleave(6, 0).repeat_interleave(6, 1)[: weight.shape[0], : weight.shape[1]]
        assert float(ordered[~mask].abs().sum()) == 0 and bool((ordered[mask] != 0).all())
        assert float(mask.double().mean()) <= 0.5
    assert half.layers["a.weight"].gather is not None and half.layers["b.weight"].gather is None
    assert type(half.model) is PivotedLayers and "no gather" in str(half)


def test_packed_networks_compute_the_same_and_say_which_kernel_they_got() -> None:
    x = torch.randn(9, 40)
    pivoted = pivot(PivotedLayers().eval(), x, 0.3, shape=(6, 6), balanced=True)
    small, chosen = pivoted.packed(x)
    assert set(chosen) == {"a.weight", "b.weight"} and set(chosen.values()) <= {"dense", "tiles", "bsr", "loops"}
    assert torch.allclose(small(x), pivoted.model(x), atol=1e-5)
    assert len({int(row.sum()) for row in pivoted.layers["b.weight"].blocks}) == 1


def test_rounds_and_training_keep_zeros(tmp_path: Path) -> None:
    x, counts = torch.randn(16, 40), []

    def fit(model: nn.Module) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        counts.append(int((model.b.weight != 0).sum()))

    pivoted = pivot(PivotedLayers(), x, 0.25, shape=(6, 6), rounds=2, fit=fit)
    assert counts[0] == pytest.approx(0.5 * 1080, rel=0.1) and counts[1] <= 0.25 * 1080
    assert int((pivoted.model.b.weight != 0).sum()) == counts[1]
    pivoted.save(tmp_path)
    assert torch.equal(sc.load(PivotedLayers(), tmp_path)(x), pivoted.model(x))
    assert torch.allclose(load_fast(PivotedLayers(), tmp_path)(x), pivoted.model(x), atol=1e-5)
    again = load_pivoted(PivotedLayers(), tmp_path, x[:2])
    assert torch.equal(again.model(x), pivoted.model(x))
    assert torch.allclose(again.packed(x)[0](x), pivoted.model(x), atol=1e-5)
    written = (tmp_path / "pivot.json").read_text()
    for broken in (written[:-9], written.replace("1", "0", 3)):
        (tmp_path / "pivot.json").write_text(broken)
        fresh = PivotedLayers()
        before = fresh.a.weight.clone()
        with pytest.raises(sc.SecateurError, match=r"cut off or damaged|checksum|version"):
            load_pivoted(fresh, tmp_path, x[:2])
        assert torch.equal(fresh.a.weight, before)


def test_pivot_takes_a_model_and_data_and_the_report_counts_what_is_left() -> None:
    x, labels = torch.randn(32, 40), torch.arange(32) % 5
    dense = PivotedLayers().eval()
    result = pivot(dense, [(x, labels)], 0.5, shape=(6, 6), tuning_steps=4, rounds=2, progress=False)
    zeros = sum(int((result.model.get_parameter(name) == 0).sum()) for name in result.layers)
    report = result.report
    assert report.pruned.cost.params == report.dense.cost.params - zeros
    assert report.pruned.cost.macs == 40 * 36 + 36 * 30 + 30 * 5 - zeros
    assert report.dense.accuracy is not None and "local optimum of the search" in str(report)
    assert set(report.sparsity.layers) == {"a.weight", "b.weight"}
    with pytest.raises(sc.SecateurError, match="are both given"):
        pivot(dense, x, 0.5, fit=lambda model: None, tuning_steps=3)


def test_what_will_go_fades_while_it_is_trained_and_blocks_hold_more() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 40)
    dense = PivotedLayers()
    wanted = dense(x).detach()
    calls = []

    def fit(model: nn.Module) -> None:
        calls.append(1)
        optimizer = torch.optim.SGD(model.parameters(), 0.02)
        for _ in range(60):
            optimizer.zero_grad()
            (model(x) - wanted).square().mean().backward()
            optimizer.step()

    plain = pivot(dense, x[:2], 0.25, shape=(6, 6), fit=fit)
    faded = pivot(dense, x[:2], 0.25, shape=(6, 6), fit=fit, fade=0.95)
    assert len(calls) == 3
    for name, layer in faded.layers.items():
        assert layer.retained > plain.layers[name].retained + 0.4
    other = torch.nn.Linear(3, 3)  # the hook is gone, and other optimizers were never its business
    before = other.weight.detach().clone()
    torch.optim.SGD(other.parameters(), 0.1).step()
    assert torch.equal(before, other.weight)


def test_convolutions_are_pivoted_by_kernels() -> None:
    model, example = grow("residual")
    pivoted = pivot(model, example, 0.5, shape=(2, 2), skip=())
    for name, layer in pivoted.layers.items():
        weight = pivoted.model.get_parameter(name)
        kernels = weight.flatten(2).abs().sum(2) if weight.dim() > 2 else weight.abs()
        assert float((kernels > 0).double().mean()) <= 0.5 + 4 / kernels.numel(), name
        assert layer.retained > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density=0.0"),
        ({"density": 0.5, "shape": (0, 4)}, "blocks of one and more"),
        ({"density": 0.5, "rounds": 0}, "rounds=0"),
        ({"density": "half"}, "density='half'"),
        ({"density": 0.5, "shape": 4}, "pair of whole numbers"),
        ({"density": 0.5, "tuning_steps": -1}, "tuning_steps=-1"),
        ({"density": 0.5, "shpe": (4, 4)}, "`pivot` has no option 'shpe'; did you mean 'shape'"),
        ({"density": 0.5, "fade": 1.5}, "fade=1.5"),
        ({"density": 0.5, "skip": "z"}, "matches no layer"),
        ({"density": 0.5, "skip": "*"}, "no layer to pivot"),
    ],
)
def test_bad_input_of_pivoting(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        pivot(PivotedLayers(), torch.randn(2, 40), **options)

"""Work that repairs and simulated plans share or leave out: the results are those of doing all of it."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from plans_by_norm import microbatches_of, plan_by_norm
from secateur import demo
from secateur.allocation.measured_curves import measured_curves
from secateur.allocation.simulate import PlanSimulator
from secateur.evaluation.calibration import Calibration
from secateur.graph.cursor import ProgramCursor
from secateur.importance.activation_taps import straight_through
from secateur.masking.linear_layers import layers_of
from secateur.masking.row_products import RowProducts
from secateur.recovery import block_problem, chain, input_covariance, refit, ridge, shared_sums
from secateur.recovery.block_problem import BlockProblem
from secateur.recovery.block_reconstruction import reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.folded_layers import FoldedLayer
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.targets import output_context
from secateur.surgery.recipe import recipe_of
from secateur.utils import symmetric_matrices
from zoo import grow

pytestmark = untrained_networks


def batch_normed() -> tuple[nn.Module, Tensor]:
    """A convolution and a linear layer with biases of their own, each before a batch norm; and one without either."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Flatten(),
        nn.Linear(8 * 16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 5, bias=False), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 2)
    return model.eval(), torch.randn(64, 3, 4, 4)


def network_of(name: str) -> tuple[nn.Module, Tensor]:
    if name == "batch norms":
        return batch_normed()
    if name == "demo":
        return demo.network(), torch.cat(demo.calibration())[:32]
    model, x = grow(name)
    return model, x


@pytest.mark.parametrize(
    "name", ["batch norms", "demo", "inverted residual", "encoder", "decoder", "flat", "few groups"]
)
def test_what_is_folded_into_a_layer_changes_no_value(name: str) -> None:
    """Constants in the bias, batch norms in the weight: what is compared is as if the change had been written."""
    model, x = network_of(name)
    plan = plan_by_norm(model, x, {"units": 0.6})
    small, recipe = sc.cut(model, plan), recipe_of(model, plan)
    program = plan.network.program
    batch = microbatches_of(x, len(x))[0]
    draws = torch.Generator().manual_seed(0)
    folded_norms = 0
    for layer in layers_of(plan.network):
        within = EmbeddedPrunedNetwork.of(small, plan.network, recipe)
        pruned_layer = PrunedLayer.of(layer, within)
        if pruned_layer is None:
            continue
        change = 0.1 * torch.randn(pruned_layer.shape, generator=draws).double()
        folded = FoldedLayer.of(pruned_layer, within)
        folded_norms += folded.norm is not None
        weight, constant = folded.tensors(change)
        handlers = {**straight_through(program), **within.handlers()}
        handlers |= folded.overrides(handlers, constant)
        state = {**within.state, layer.weight: weight}
        fixed = {**within.fixed(), **{node: state[tensor] for node, tensor in program.state_names.items()}}
        pre_activation = output_context(plan.network, layer).pre_activation
        stop = program.position[pre_activation] + 1
        with torch.no_grad():
            values = program.run({**fixed, **program.bind(batch)}, program.first, stop, handlers, keep=[pre_activation])
            pruned_layer.write(within, change)
            written = program.run(
                {**within.fixed(), **program.bind(batch)}, program.first, stop, within.handlers(), keep=[pre_activation]
            )
        axis = 1 if layer.is_convolution else values[pre_activation].dim() - 1
        stays = torch.nonzero(within.mask[layer.outputs]).flatten()
        pair = (run[pre_activation] for run in (values, written))
        first, second = (
            value if value.shape[axis] == len(stays) else value.index_select(axis, stays) for value in pair
        )
        assert torch.allclose(first, second, atol=1e-4), layer.name
    assert folded_norms > 0 or name not in ("batch norms", "demo")


def test_simulated_plans_share_what_they_read_of_the_dense_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense network runs beside the first plan alone, and divergences are those of a fresh simulator."""
    model, x = demo.network(), torch.cat(demo.calibration())[:32]
    network = sc.trace(model, x[:2])
    simulator = PlanSimulator(Calibration(network, microbatches_of(x, 16)))
    scores = sc.score(network, by="l2")
    plans = [sc.plan(network, scores, {"units": keep}).kept for keep in (0.8, 0.5, 0.7)]
    expected = [simulator.quick(32).divergences(kept) for kept in plans]
    dense_runs, advance = list[int](), ProgramCursor.advance

    def counted(self: ProgramCursor, state: Any, stop: int, fixed: Any, handlers: Any = None, **options: Any) -> Any:
        dense_runs.append(int(handlers is None and stop > state.position))
        return advance(self, state, stop, fixed, handlers, **options)

    monkeypatch.setattr(ProgramCursor, "advance", counted)
    quick, runs = simulator.quick(32), list[int]()
    for kept, divergences in zip(plans, expected, strict=True):
        dense_runs.clear()
        assert torch.equal(quick.divergences(kept), divergences)
        runs.append(sum(dense_runs))
    assert runs[0] > 0 and runs[1:] == [0, 0]


def test_without_room_the_dense_network_runs_beside_every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = demo.network(), torch.cat(demo.calibration())[:32]
    network = sc.trace(model, x[:2])
    simulator = PlanSimulator(Calibration(network, microbatches_of(x, 16)))
    kept = sc.plan(network, sc.score(network, by="l2"), {"units": 0.5}).kept
    expected = simulator.quick(32).divergences(kept)
    monkeypatch.setattr("secateur.allocation.simulation_fold.KNOWN_MEMORY", 1e-4)  # some layers alone
    quick = simulator.quick(32)
    assert torch.equal(quick.divergences(kept), expected) and torch.equal(quick.divergences(kept), expected)
    known = quick.fitted.known
    assert known is not None and 0 < sum(known.has(layer) for layer in quick.layers) < len(quick.layers)


def slopes_of(monkeypatch: pytest.MonkeyPatch, keep: float, steps: int) -> list[int]:
    """The number of gradients that each problem of the demo's network computes."""
    model, x = demo.network(), torch.cat(demo.calibration())[:32]
    plan = plan_by_norm(model, x, {"units": keep})
    within = EmbeddedPrunedNetwork.of(sc.cut(model, plan), plan.network, recipe_of(model, plan))
    counts, slopes = dict[int, int](), BlockProblem._slopes

    def counted(self: BlockProblem, changes: Any) -> Any:
        counts[self.start] = counts.get(self.start, 0) + 1
        return slopes(self, changes)

    monkeypatch.setattr(BlockProblem, "_slopes", counted)
    with torch.no_grad():
        reconstruct_blocks(PairedExecution(within, microbatches_of(x, 16)), steps)
    monkeypatch.setattr(BlockProblem, "_slopes", slopes)
    return list(counts.values())


def test_steps_end_where_the_next_one_would_gain_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is made as far as it goes, but none follows one that removes less than a share of the error."""
    assert set(slopes_of(monkeypatch, 1.0, 4)) == {1}  # nothing was cut, nothing is lacking
    monkeypatch.setattr(block_problem, "GAIN", 1.0)
    assert set(slopes_of(monkeypatch, 0.5, 4)) == {1}
    monkeypatch.setattr(block_problem, "GAIN", -1.0)
    assert max(slopes_of(monkeypatch, 0.5, 3)) == 3


def test_a_refit_makes_no_steps_where_adapt_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without adapt behind it, all examples are fitted with the steps and ridges that were chosen."""
    model, x = batch_normed()
    plan = plan_by_norm(model, x, {"units": 0.6})
    have_steps, known, original = list[bool](), list[bool](), chain.refit

    def recorded(execution: PairedExecution, choices: Any, examples: int, has_steps: bool) -> Any:
        have_steps.append(has_steps)
        known.append(choices is not None)
        chosen = original(execution, choices, examples, has_steps)
        assert has_steps or not any(choice.steps for choice in chosen.values())
        return chosen

    monkeypatch.setattr(chain, "refit", recorded)
    monkeypatch.setattr(chain, "reconstruct_blocks", lambda *_: True)  # which changes nothing and is left out
    for repairs, expected in (
        (["refit", "adapt"], [False, False]),
        (["refit"], [True, True]),
        (["adapt", "refit"], [True, True]),
    ):
        have_steps.clear()
        known.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.repair(sc.cut(model, plan), model, plan, x, repairs, progress=False)
        assert have_steps == expected and known == [False, True]


def test_a_curve_leaves_layers_alone_that_read_what_they_read_in_the_dense_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A depthwise convolution reads its own units before anything lacks them; no curve starts from the input again."""
    model, x = network_of("inverted residual")
    network = sc.trace(model, x[:2])
    scores = sc.score(network, by="l2")
    whole = PlanSimulator(Calibration(network, microbatches_of(torch.randn(64, *x.shape[1:]), 16)))
    depthwise = {layer.name for layer in layers_of(network) if layer.groups > 1}
    assert depthwise & {layer.name for name in scores for layer in whole.consumers(name)}
    refitted, starts = set[str](), list[int]()
    refit_layer, advance = refit.refit_layer, ProgramCursor.advance

    def recorded(execution: PairedExecution, pruned_layer: PrunedLayer, *options: Any, **sums: Any) -> Any:
        refitted.add(pruned_layer.layer.name)
        return refit_layer(execution, pruned_layer, *options, **sums)

    def counted(self: ProgramCursor, state: Any, stop: int, *options: Any, **more: Any) -> Any:
        starts.append(state.position)
        return advance(self, state, stop, *options, **more)

    monkeypatch.setattr(refit, "refit_layer", recorded)
    monkeypatch.setattr(ProgramCursor, "advance", counted)
    simulator = whole.quick_held_out(48)
    curves = measured_curves(simulator, scores)
    assert curves is not None and refitted and not depthwise & refitted
    runs = len(simulator.fitted.microbatches) + 2 * len(
        simulator.held_out.microbatches
    )  # the latter give dense outputs as well
    assert starts.count(network.program.first) == runs


class AttentionWithGate(nn.Module):
    """Queries, keys and values of one stream, and a gate beside what it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.gate, self.up = nn.Linear(16, 16), nn.Linear(16, 24), nn.Linear(16, 24)
        self.down, self.head = nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        query, key, value = (
            layer(x).unflatten(2, (4, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        x = x + self.out(nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        x = x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return self.head(x.mean(1))


EACH_ALONE: Any = lambda pruned_layers, _: [[pruned_layer] for pruned_layer in pruned_layers]  # noqa: E731


@pytest.mark.parametrize("how", ["refit", "simulation", "adapt"])
def test_layers_that_read_the_same_rows_share_products_and_factors(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values, and a gate and what it multiplies; the results are the same bits."""
    torch.manual_seed(0)
    model, x = AttentionWithGate().eval(), torch.randn(64, 5, 6)
    plan = plan_by_norm(model, x, {"units": 0.6})
    small, recipe = sc.cut(model, plan), recipe_of(model, plan)
    counts = {"products": 0, "factors": 0}
    add, factor = RowProducts.add, symmetric_matrices.factor_in_place

    def counted_add(self: RowProducts, rows: Tensor) -> None:
        counts["products"] += 1
        add(self, rows)

    def counted_factor(matrices: Tensor) -> Any:
        counts["factors"] += 1
        return factor(matrices)

    monkeypatch.setattr(RowProducts, "add", counted_add)
    for module in (ridge, input_covariance):
        monkeypatch.setattr(module, "factor_in_place", counted_factor)

    def results() -> tuple[list[Tensor], dict[str, int]]:
        counts.update(products=0, factors=0)
        if how == "simulation":
            simulator = PlanSimulator(Calibration(plan.network, microbatches_of(x, 16))).quick(64)
            return [simulator.divergences(plan.kept)], dict(counts)
        within = EmbeddedPrunedNetwork.of(small, plan.network, recipe)
        execution = PairedExecution(within, microbatches_of(x, 16))
        if how == "adapt":
            reconstruct_blocks(execution, 2)
        else:
            with torch.no_grad():
                refit.refit(execution)
        return [within.state[name] for name in within.state], dict(counts)

    shared, fewer = results()
    for module in (shared_sums, input_covariance):
        monkeypatch.setattr(module, "layers_by_rows", EACH_ALONE)
    alone, more = results()
    assert all(torch.equal(*pair) for pair in zip(shared, alone, strict=True))
    assert fewer["products"] < more["products"] and fewer["factors"] < more["factors"]

"""Work that repairs and simulated plans share or leave out: the results are those of doing all of it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from batch_normed import folding_network
from expected_warnings import untrained_networks
from plans_by_norm import microbatches_of, plan_by_norm
from secateur.allocation.simulate import PlanSimulator
from secateur.evaluation.calibration import Calibration
from secateur.masking.linear_layers import layers_of
from secateur.masking.row_products import RowProducts
from secateur.masking.straight_through import straight_through
from secateur.recovery import input_covariance, refit, ridge, shared_sums
from secateur.recovery.block_reconstruction import reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.folded_layers import FoldedLayer
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.targets import output_context
from secateur.surgery.recipe import recipe_of
from secateur.utils import symmetric_matrices

pytestmark = untrained_networks


@pytest.mark.parametrize(
    "name", ["batch norms", "demo", "inverted residual", "encoder", "decoder", "flat", "few groups"]
)
def test_what_is_folded_into_a_layer_changes_no_value(name: str) -> None:
    """Constants in the bias, batch norms in the weight: what is compared is as if the change had been written."""
    model, x = folding_network(name)
    plan = plan_by_norm(model, x, {"units": 0.6})
    small, recipe = sc.cut(model, plan), recipe_of(model, plan)
    program = plan.network.program
    batch = microbatches_of(x, len(x))[0]
    draws = torch.Generator().manual_seed(0)
    folded_norms = 0
    for layer in layers_of(plan.network):
        cut_network = EmbeddedPrunedNetwork.of(small, plan.network, recipe)
        pruned_layer = PrunedLayer.of(layer, cut_network)
        if pruned_layer is None:
            continue
        change = 0.1 * torch.randn(pruned_layer.shape, generator=draws).double()
        folded = FoldedLayer.of(pruned_layer, cut_network)
        folded_norms += folded.norm is not None
        weight, constant = folded.tensors(change)
        handlers = {**straight_through(program), **cut_network.handlers()}
        handlers |= folded.overrides(handlers, constant)
        state = {**cut_network.state, layer.weight: weight}
        fixed = {**cut_network.fixed(), **{node: state[tensor] for node, tensor in program.state_names.items()}}
        pre_activation = output_context(plan.network, layer).pre_activation
        stop = program.position[pre_activation] + 1
        with torch.no_grad():
            values = program.run({**fixed, **program.bind(batch)}, program.first, stop, handlers, keep=[pre_activation])
            pruned_layer.write(cut_network, change)
            written = program.run(
                {**cut_network.fixed(), **program.bind(batch)},
                program.first,
                stop,
                cut_network.handlers(),
                keep=[pre_activation],
            )
        axis = 1 if layer.is_convolution else values[pre_activation].dim() - 1
        stays = torch.nonzero(cut_network.mask[layer.outputs]).flatten()
        pair = (run[pre_activation] for run in (values, written))
        first, second = (
            value if value.shape[axis] == len(stays) else value.index_select(axis, stays) for value in pair
        )
        assert torch.allclose(first, second, atol=1e-4), layer.name
    assert folded_norms > 0 or name not in ("batch norms", "demo")


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
        cut_network = EmbeddedPrunedNetwork.of(small, plan.network, recipe)
        execution = PairedExecution(cut_network, microbatches_of(x, 16))
        if how == "adapt":
            reconstruct_blocks(execution, 2)
        else:
            with torch.no_grad():
                refit.refit(execution)
        return [cut_network.state[name] for name in cut_network.state], dict(counts)

    shared, fewer = results()
    for module in (shared_sums, input_covariance):
        monkeypatch.setattr(module, "layers_by_rows", EACH_ALONE)
    alone, more = results()
    assert all(torch.equal(*pair) for pair in zip(shared, alone, strict=True))
    assert fewer["products"] < more["products"] and fewer["factors"] < more["factors"]

"""A cut network in the dense one's program: its tensors take no memory beyond those of the cut model."""

from collections.abc import Iterator

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.graph.cursor import ValuesOver
from secateur.recovery.cut_tensors import tensors_by_name
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.surgery.recipe import recipe_of
from secateur.utils import mapped_tensors

pytestmark = untrained_networks

Subject = tuple[nn.Module, nn.Module, EmbeddedPrunedNetwork, dict[str, Tensor]]


class Mixed(nn.Module):
    """A convolution with a batch norm, one in groups, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=4)
        self.c = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.relu(self.b(torch.relu(self.n(self.a(x))))).mean((2, 3)))
        return y


def networks() -> Iterator[tuple[nn.Module, dict[str, Tensor] | Tensor]]:
    torch.manual_seed(0)
    yield Mixed().eval(), torch.randn(4, 3, 8, 8)
    for name in ("llama", "gpt2"):
        yield tiny_transformer(name, 4)


def embedded(model: nn.Module, batch: dict[str, Tensor] | Tensor) -> Subject:
    network = sc.trace(model, batch)
    plan = sc.plan(network, sc.score(network, by="l2", ablation="zero"), {"units": 0.5})
    small, recipe = sc.cut(model, plan), recipe_of(model, plan)
    slices = recipe.slices
    dense = {}
    for name, tensor in tensors_by_name(small).items():  # in the dense shape, with the dense network's removed entries
        expanded = tensors_by_name(model)[name].detach().clone() if name in slices else tensor.detach()
        axes = slices.get(name, {})
        grid = [axes.get(axis, torch.arange(length)) for axis, length in enumerate(expanded.shape)]
        if axes:
            expanded[torch.meshgrid(*grid, indexing="ij")] = tensor.detach()
        dense[name] = expanded
    return model, small, EmbeddedPrunedNetwork.of(small, network, recipe), dense


@pytest.mark.parametrize("number", range(3))
def test_tensors_are_read_in_the_dense_shapes_and_held_in_the_cut_model(number: int) -> None:
    model, small, cut_network, dense = embedded(*list(networks())[number])
    state, tensors = cut_network.state, tensors_by_name(small)
    assert len(state) == len(list(state))
    for name in state:
        assert torch.equal(state[name], dense[name])
        assert state.compact(name).data_ptr() == tensors[name].data_ptr()
    fixed = cut_network.fixed()
    cut = [name for name in state if state.axes(name)]
    compact = [
        name for node, name in cut_network.network.program.state_names.items() if node in cut_network._compact_weights
    ]
    assert cut and set(compact) <= set(cut)
    for node, name in cut_network.network.program.state_names.items():
        value = fixed[node]
        assert value.shape == (tensors[name].shape if name in compact else dense[name].shape)
    assert number == 2 or compact  # layers of GPT-2 hold their weights transposed


def test_a_repaired_copy_takes_over_new_tensors_and_leaves_the_cut_model_as_it_is() -> None:
    _, small, cut_network, _ = embedded(*next(networks()))
    before = {name: tensor.clone() for name, tensor in tensors_by_name(small).items()}
    new = cut_network.state["c.weight"] + 1
    cut_network.state["c.weight"] = new
    written = tensors_by_name(cut_network.copy_with_state(small))
    assert written["c.weight"].data_ptr() == cut_network.state.compact("c.weight").data_ptr()
    assert torch.equal(written["c.weight"], before["c.weight"] + 1)
    assert written["a.weight"].data_ptr() == tensors_by_name(small)["a.weight"].data_ptr()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_by_name(small).items())


def test_values_of_a_run_are_looked_up_behind_its_own() -> None:
    _, _, cut_network, _ = embedded(*next(networks()))
    program = cut_network.network.program
    fixed, node = cut_network.fixed(), next(iter(program.state_names))
    values = ValuesOver({program.inputs[0]: 1}, fixed)
    assert values[program.inputs[0]] == 1 and values[node] is fixed[node] and node not in dict(values)
    assert set(fixed) == {*program.state_names, *program.constants} and len(fixed) == len(set(fixed))
    replaced = cut_network.fixed(0, {program.state_names[node]: torch.zeros(1)})
    assert torch.equal(replaced[node], torch.zeros(1))


def test_the_dense_network_with_a_mask_is_held_in_its_own_memory_and_refitted_in_the_cut_shapes() -> None:
    model, _, of_cut, _ = embedded(*list(networks())[1])
    network, mask = of_cut.network, of_cut.mask
    kept = {group.name: torch.nonzero(mask[group.span]).flatten() for group in network.groups}
    whole = EmbeddedPrunedNetwork.of_kept(network, kept)
    assert torch.equal(whole.mask, mask)
    for name, tensor in tensors_by_name(model).items():
        assert whole.state[name].data_ptr() == tensor.data_ptr()
        assert torch.equal(whole.state.compact(name), of_cut.state.compact(name))
        whole.state[name] = tensor.detach() + 1
        expected = tensor.detach().clone()
        grid = [of_cut.state.axes(name).get(axis, torch.arange(length)) for axis, length in enumerate(tensor.shape)]
        expected[torch.meshgrid(*grid, indexing="ij")] += 1  # removed entries stay those of the dense network
        assert torch.equal(whole.state[name], expected)
        assert whole.state.compact(name).shape == of_cut.state.compact(name).shape


def test_results_are_the_same_bits_where_refitted_weights_are_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for room in (1 << 30, 0):
        monkeypatch.setattr(mapped_tensors, "ROOM", room)
        model, batch = tiny_transformer("llama", 4)
        result = sc.prune(model, [batch] * 4, keep={"params": 0.6}, progress=False)
        assert not any(weight.untyped_storage().is_shared() for weight in result.model.parameters())
        results.append(result.model.state_dict())
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())

"""Exports are made cheaper without another result, and torch is left as it was."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._decomp import decompositions
from torch._dynamo import config as dynamo_config
from torch.export import ExportedProgram
from torch.nn import functional as F

import secateur as sc
from secateur.data.batch import Batch
from secateur.graph import decomposed_operators
from secateur.graph.export import export_program
from secateur.graph.export_kernels import SHAPE_KERNELS, without_shape_cache
from secateur.graph.program import OpFn, OpOverride
from secateur.surgery.trial_cut import TrialCutter


class Recurrent(nn.Module):
    """A recurrent layer that gives its output and every state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


LAYERS = {
    "lstm": lambda: nn.LSTM(3, 5),
    "lstm, both directions, two layers, batch first": lambda: nn.LSTM(3, 5, 2, batch_first=True, bidirectional=True),
    "lstm with a projection": lambda: nn.LSTM(3, 6, proj_size=2, batch_first=True),
    "gru without biases": lambda: nn.GRU(3, 5, bias=False, batch_first=True),
    "gru, both directions": lambda: nn.GRU(3, 5, bidirectional=True, batch_first=True),
    "tanh": lambda: nn.RNN(3, 5, 2, batch_first=True),
    "relu": lambda: nn.RNN(3, 5, nonlinearity="relu", batch_first=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_are_exported_without_their_steps(name: str) -> None:
    torch.manual_seed(0)
    model, batch = Recurrent(LAYERS[name]()).eval(), Batch((torch.randn(4, 7, 3),), {})
    with patch.object(decompositions, "_rnn_helper", side_effect=AssertionError("unrolled")):
        program = export_program(model, batch)
    recorded: dict[str, tuple[Any, Any]] = {}

    def shape_checked(node: torch.fx.Node) -> OpOverride:
        def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = target(*args, **kwargs)
            if isinstance(result, Tensor):
                sizes = node.meta["val"].shape
                lengths = [int(size.node.hint) if isinstance(size, torch.SymInt) else size for size in sizes]
                recorded[node.name] = (torch.Size(lengths), result.shape)
            return result

        return handler

    with torch.no_grad():
        outputs = program.forward(batch, {node: shape_checked(node) for node in program.nodes if node.op != "output"})
        torch.testing.assert_close(outputs, model(*batch.args))
    assert recorded and all(exported == run for exported, run in recorded.values())


def normalised_choice(x: Tensor) -> Tensor:
    values, indices = x.topk(2)
    values /= values.sum(-1, keepdim=True)
    return values + indices


def choice_used_before_its_write(x: Tensor) -> Tensor:
    values, _ = x.topk(2)
    doubled, view = values * 2, values[:, :1]
    values += 1
    return doubled + view


def half_of_what_is_used_whole(x: Tensor) -> Tensor:
    whole = x * 1
    whole.chunk(2, 1)[0].mul_(3)
    return whole


class Writing(nn.Module):
    """A network whose outputs are changed in place."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self.layer, self.write = nn.Linear(3, 4), write

    def forward(self, x: Tensor) -> Any:
        return self.write(self.layer(x))


WRITES = (normalised_choice, choice_used_before_its_write, half_of_what_is_used_whole)


@pytest.mark.parametrize("write", WRITES)
def test_writes_to_one_of_several_results(write: Any) -> None:
    torch.manual_seed(0)
    model, batch = Writing(write).eval(), Batch((torch.randn(5, 3),), {})
    with torch.no_grad():
        torch.testing.assert_close(export_program(model, batch).forward(batch), model(*batch.args))


def test_a_write_to_one_of_several_results_needs_no_decomposition() -> None:
    with patch.object(ExportedProgram, "run_decompositions", side_effect=AssertionError("decomposed")):
        export_program(Writing(normalised_choice), Batch((torch.randn(5, 3),), {}))


class Summed(nn.Module):
    """Products written as sums over letters, in the forms that torch takes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("b...i,io->b...o", x, self.weight)
        return torch.einsum("bno,bmo->bnm", [y, y]) + torch.einsum("bno,bmo,o->bnm", y, y, self.weight[0])


def test_sums_over_letters_are_exported_as_products_at_once() -> None:
    torch.manual_seed(0)
    model, batch = Summed(), Batch((torch.randn(5, 2, 3),), {})
    with patch.object(ExportedProgram, "run_decompositions", side_effect=AssertionError("exported once more")):
        program = export_program(model, batch)
    assert not any("einsum" in str(node.target) for node in program.nodes)
    with torch.no_grad():
        torch.testing.assert_close(program.forward(batch), model(*batch.args))


class ProductsAndSums(nn.Module):
    """Operators of a product and a sum, called by torch's own code, as functions, and as methods."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(4, 4, dtype=torch.bool, device=x.device).triu(1)
        y, _ = self.attention(x, x, x, attn_mask=mask)
        y = y + y.baddbmm(y, y.transpose(1, 2) @ y, beta=0.3) + torch.addbmm(y[0], y, y.transpose(1, 2) @ y, alpha=2)
        return torch.tensordot(y, x[0], dims=([1], [0])).sum(1) + F.cosine_similarity(x, y, dim=1)


def test_products_and_sums_are_exported_apart_at_once() -> None:
    """The mask of the attention is filled in place, which is no reason to export again either."""
    torch.manual_seed(0)
    model, batch = ProductsAndSums().eval(), Batch((torch.randn(5, 4, 8),), {})
    with patch.object(ExportedProgram, "run_decompositions", side_effect=AssertionError("exported once more")):
        program = export_program(model, batch)
    assert not {node.target for node in program.nodes} & decomposed_operators.decompositions().keys()
    with torch.no_grad():
        torch.testing.assert_close(program.forward(batch), model(*batch.args))


def test_products_and_sums_are_taken_apart_in_the_program_where_torch_offers_no_other_way() -> None:
    torch.manual_seed(0)
    model, batch = ProductsAndSums().eval(), Batch((torch.randn(5, 4, 8),), {})
    with patch.object(decomposed_operators, "proxy_tensor", object()):
        program = export_program(model, batch)
    assert not {node.target for node in program.nodes} & decomposed_operators.decompositions().keys()
    with torch.no_grad():
        torch.testing.assert_close(program.forward(batch), model(*batch.args))


def test_torch_is_as_it_was_after_an_export_that_fails() -> None:
    class Refusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert not dynamo_config.fake_tensor_cache_enabled or x.shape[0] == 2, "symbolic"
            raise ValueError("refused")

    kernels = {operator: dict(operator.py_kernels) for operator in SHAPE_KERNELS}
    cached = dynamo_config.fake_tensor_cache_enabled
    with pytest.raises(sc.SecateurError, match="refused"):
        export_program(Refusing(), Batch((torch.randn(2, 3),), {}))
    assert {operator: dict(operator.py_kernels) for operator in SHAPE_KERNELS} == kernels
    assert dynamo_config.fake_tensor_cache_enabled == cached
    with without_shape_cache(symbolic=True):
        assert not dynamo_config.fake_tensor_cache_enabled
    assert dynamo_config.fake_tensor_cache_enabled == cached


def test_a_trial_cut_is_made_once_for_a_network() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    network = sc.trace(model, torch.randn(2, 3))
    trials, kept = TrialCutter(model), {"0": torch.tensor([0, 2])}
    with patch.object(trials, "_run", wraps=trials._run) as run:
        assert [trials.run(network, kept, {}) for _ in range(3)] == [None] * 3
        assert run.call_count == 1
        trials.run(network, {"0": torch.tensor([1, 2])}, {})
        trials.far = True
        trials.run(network, kept, {})
    assert run.call_count == 3

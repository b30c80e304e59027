"""The benchmark of public definitions: what it notices of a changed model, how it keeps rows, what it loads."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks.cifar_resnet import CifarResNet, load_cifar_resnet
from safetensors.torch import save_file
from torch import nn
from wild import results
from wild.isolation import run_isolated
from wild.plain_models import DEFINITIONS
from wild.table import as_markdown
from wild.unchanged import Snapshot

from expected_warnings import untrained_networks

pytestmark = untrained_networks


class Frozen(dict[str, int]):
    """A configuration that refuses changes by the usual way."""

    def __setitem__(self, key: str, value: int) -> None:
        raise TypeError("frozen")


def model_with_attributes() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.config = Frozen(width=4)  # type: ignore[assignment]
    model.names = ["a", "b"]  # type: ignore[assignment]
    return model


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a parameter": lambda model: model[0].weight.data[0, 0].add_(1e-6),
    "a buffer": lambda model: model[1].running_mean.add_(1),
    "a gradient": lambda model: setattr(model[0].weight, "grad", torch.ones(4, 3, 1, 1)),
    "requires_grad": lambda model: model[0].weight.requires_grad_(False),
    "a mode": lambda model: model[1].eval(),
    "a hook": lambda model: model[0].register_forward_hook(lambda *args: None),
    "an attribute": lambda model: setattr(model[0], "note", 1),
    "an emptied configuration": lambda model: model.config.clear(),
    "an equal configuration": lambda model: setattr(model, "config", Frozen(width=4)),
    "a list": lambda model: model.names.append("c"),
    "a parameter's place": lambda model: setattr(model[0], "weight", nn.Parameter(model[0].weight.data.clone())),
    "the random state": lambda model: torch.rand(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_snapshot_notices(change: str) -> None:
    model, example = model_with_attributes(), {"x": torch.randn(2, 3, 4, 4)}
    before = Snapshot(model, example)
    assert before.changes(model, example) == []
    CHANGES[change](model)
    assert before.changes(model, example)


def test_a_snapshot_notices_a_written_example() -> None:
    model, example = model_with_attributes(), torch.randn(2, 3, 4, 4)
    before = Snapshot(model, example)
    example.relu_()
    assert before.changes(model, example) == ["example"]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_own_definitions_run_for_any_batch(name: str) -> None:
    torch.manual_seed(0)
    model = DEFINITIONS[name].make().eval()
    example = DEFINITIONS[name].inputs()
    inputs = example if isinstance(example, tuple) else (example,)
    whole = model(*inputs)
    assert torch.isfinite(whole).all()
    if name not in ("plain/gcn", "plain/gat"):  # one graph, whose first axis is no batch
        first = model(*(tensor[:1] for tensor in inputs))
        torch.testing.assert_close(first, whole[:1], rtol=1e-4, atol=1e-5)


def test_graph_convolution_is_the_normalised_adjacency() -> None:
    torch.manual_seed(0)
    x, edges = DEFINITIONS["plain/gcn"].inputs()
    edges = torch.unique(edges[:, :150], dim=1)
    layer = DEFINITIONS["plain/gcn"].make().layers[0]
    adjacency = torch.eye(len(x)).index_put((edges[1], edges[0]), torch.ones(edges.shape[1]), accumulate=True)
    scale = adjacency.sum(1).rsqrt()
    expected = scale[:, None] * adjacency * scale @ x @ layer.linear.weight.T + layer.bias
    torch.testing.assert_close(layer(x, edges), expected)


@pytest.mark.parametrize(("blocks", "parameters"), [(3, 269722), (9, 853018)])
def test_cifar_resnets_load_from_files(blocks: int, parameters: int, tmp_path: Path) -> None:
    """The counts are those of option A, as published: 0.27 and 0.85 million."""
    torch.manual_seed(blocks)
    model = CifarResNet(blocks).eval()
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "resnet.safetensors")
    loaded = load_cifar_resnet(tmp_path / "resnet.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == parameters
    assert torch.equal(loaded(images), model(images))


def test_a_row_replaces_the_old_one_and_keeps_its_peer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.write_rows(path, [{"name": "a", "share": 0.5, "peer": {"outcome": "works"}}, {"name": "b"}])
    results.replace_row(path, {"name": "a", "share": 0.9})
    rows = results.rows_by_name(path)
    assert set(rows["a"].pop("run")) == {"version", "commit", "torch", "processor", "threads", "date"}
    assert rows == {"a": {"name": "a", "share": 0.9, "peer": {"outcome": "works"}}, "b": {"name": "b"}}


def _hang() -> results.Row:
    time.sleep(60)
    return {}


def _crash() -> results.Row:
    os._exit(3)


def test_what_runs_apart_may_hang_or_crash() -> None:
    assert run_isolated(lambda: {"share": 1}, 60) == {"share": 1}
    assert run_isolated(_hang, 1)["failed"] == "time"
    assert run_isolated(_crash, 60)["failed"] == "process"


def test_the_page_sets_versions_side_by_side_and_names_what_went_wrong() -> None:
    row = {"version": "2", "share": 1.0, "trials": 4, "trace_s": 2.0, "batched_s": 1.0, "export_s": 0.5, "frozen": []}
    good = {**row, "name": "lib/good", "changed": [], "raw": False, "frozen_units": 0}
    harmed = {**row, "name": "lib/harmed", "changed": ["model.config"], "raw": True, "failed": "trace"}
    harmed |= {"error": "KeyError: x", "share": 0.2, "frozen": [["a", 8, "add", "", "meets a tensor"]]}
    old = {"name": "lib/old", "version": "1", "share": 1.0}
    before = {"lib/good": {**row, "version": "1", "name": "lib/good", "share": 0.25, "frozen_units": 7, "trials": 99}}
    page = as_markdown({entry["name"]: entry for entry in (good, harmed, old)}, before)
    assert "| lib/good | 25.0% | 100.0% | 7 | 0 | 2.0 | 2.0 | 99 | 4 |" in page
    assert "| lib/old * |" in page
    assert "in the 2 rows of version 2" in page
    assert "of which 1 are older" in page
    assert "1 raised an exception that is no SecateurError: lib/harmed" in page
    assert "1 had changed: lib/harmed" in page
    assert "`a`: add: meets a tensor" in page


def test_the_page_names_the_slowest_and_knows_the_newest_version_in_any_order() -> None:
    row = {"share": 1.0, "trace_s": 2.0, "batched_s": 1.0, "export_s": 0.5, "frozen": []}
    on_the_way, slow = {**row, "version": "0.10.0 on the way"}, {**row, "trace_s": 5.0}
    rows = [
        {**on_the_way, "name": "a"},
        {**slow, "version": "0.9.1", "name": "b"},
        {**slow, "version": "0.10.0", "name": "c"},
    ]
    page = as_markdown({entry["name"]: entry for entry in rows}, {})
    assert "in the 1 rows of version 0.10.0;" in page
    assert "2 of 3 took 8 times a plain export or more: c 10.0, b * 10.0." in page
    assert "older" not in as_markdown({"c": rows[2]}, {})

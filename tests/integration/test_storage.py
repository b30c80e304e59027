"""Results on disk: bit-equal when all is well, a clear error and nothing lost when it is not."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import secateur as sc
from commands import run_python
from copied_traces import copies_traced_once
from expected_warnings import untrained_networks
from secateur.data.conversion import example_batches
from zoo import ZOO, grow
from zoo_attention import CachedBiases

pytestmark = untrained_networks  # of untrained networks that the fixtures prune


def pruned(name: str, **options: Any) -> sc.Result:
    model, example = grow(name)
    data = [example_batches(example, torch.device("cpu"))[0]]
    with copies_traced_once(name):
        return sc.prune(model, data, {"units": 0.7}, by="apoz", progress=False, **ZOO[name].options, **options)


pruned_once = cache(pruned)
"""The result of a network, which the laws of a process share and leave as it is."""


def before_any_run(model: nn.Module) -> nn.Module:
    """Return a model with empty caches of what evaluation mode computes once, as a fresh one has them."""
    for module in model.modules():
        if isinstance(module, CachedBiases):
            module.cache = {}
    return model


@pytest.mark.parametrize("name", ZOO)
def test_law_6_loaded_onto_a_fresh_model_it_is_bit_equal(name: str, tmp_path: Path) -> None:
    result = pruned_once(name)
    result.save(tmp_path)
    fresh = sc.load(before_any_run(grow(name, seed=99)[0]), tmp_path)
    for (key, a), (_, b) in zip(result.model.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert torch.equal(a, b), key
    batch = result.plan.network.example
    with torch.no_grad():
        outputs = [model(*batch.args, **batch.kwargs) for model in (result.model, fresh)]
    for a, b in zip(*(torch.utils._pytree.tree_leaves(output) for output in outputs), strict=True):
        assert torch.equal(a, b)
    assert type(fresh) is type(result.model) or result.recipe.program


def test_what_is_written_is_readable_by_anybody(tmp_path: Path) -> None:
    result = pruned_once("residual")
    result.save(tmp_path)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["kept"] == {name: kept.tolist() for name, kept in result.plan.kept.items()}
    assert recipe["model"] == "Residual" and recipe["torch"] == torch.__version__ and recipe["secateur"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["pruned"]["cost"]["params"] == result.plan.cost.params
    assert not list(tmp_path.glob("*.pkl")) and not list(tmp_path.glob(".*"))


def test_loaded_weights_lie_where_kernels_want_them(tmp_path: Path) -> None:
    """A kernel may round otherwise where a tensor begins at any byte, as it does in a file."""
    pruned_once("residual").save(tmp_path)
    fresh = sc.load(grow("residual", seed=4)[0], tmp_path)
    allocated = torch.empty(3).data_ptr() % 64
    assert {tensor.data_ptr() % 64 for tensor in fresh.state_dict().values()} == {allocated}


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    pruned_once("reused").save(tmp_path)
    fresh = sc.load(grow("reused", seed=4)[0], tmp_path)
    assert fresh.head.weight is fresh.embed.weight


def damage(folder: Path, how: str) -> None:
    weights, recipe = folder / "weights.safetensors", folder / "recipe.json"
    content = bytearray(weights.read_bytes())
    if how == "no weights":
        weights.unlink()
    elif how == "no recipe":
        recipe.unlink()
    elif how == "cut-off weights":
        weights.write_bytes(content[: len(content) // 2])
    elif how == "cut-off recipe":
        recipe.write_text(recipe.read_text()[:200])
    elif how == "altered weights":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif how == "altered recipe":
        recipe.write_text(recipe.read_text().replace('"model": "Sequential"', '"model": "Other"'))
    elif how == "foreign weights":
        save_file({"x": torch.zeros(2)}, weights)
    elif how == "foreign recipe":
        recipe.write_text('{"format": "something else"}')
    elif how == "a list":
        recipe.write_text("[1, 2]")
    elif how == "scores for weights":
        weights.write_bytes((folder / "scores.safetensors").read_bytes())


KINDS = {
    "no weights": "missing",
    "no recipe": "missing",
    "cut-off weights": "cut off",
    "cut-off recipe": "cut off",
    "altered weights": "altered",
    "altered recipe": "altered",
    "foreign weights": "other tensors",
    "foreign recipe": "something else",
    "a list": "array",
    "scores for weights": "secateur scores",
}


@pytest.mark.parametrize("how", KINDS)
def test_damage_is_named_and_the_model_is_as_it_was(how: str, tmp_path: Path) -> None:
    pruned_once("mlp").save(tmp_path)
    damage(tmp_path, how)
    model = grow("mlp", seed=5)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(sc.SecateurError, match=KINDS[how]) as error:
        sc.load(model, tmp_path)
    assert str(tmp_path) in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_another_network_is_refused(tmp_path: Path) -> None:
    pruned_once("mlp").save(tmp_path)
    with pytest.raises(sc.SecateurError, match="give a fresh, dense model"):
        sc.load(nn.Sequential(nn.Linear(3, 3)), tmp_path)
    model = sc.load(grow("mlp")[0], tmp_path)
    with pytest.raises(sc.SecateurError, match="give a fresh, dense model"):
        sc.load(model, tmp_path)


FULL = """
import resource, signal, sys
sys.path[:0] = {path!r}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import secateur as sc
from test_storage import pruned
result = pruned("mlp", seed=1)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, most))
try:
    result.save({folder!r})
except sc.SecateurError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # what is printed goes to a file, too
    print("refused:", error)
"""


@pytest.mark.parametrize("limit", [100, 5000])
def test_a_full_disk_leaves_the_old_files(limit: int, tmp_path: Path) -> None:
    """A real process whose files may not grow beyond a limit, as on a full disk."""
    folder = tmp_path / "saved"
    pruned("mlp", seed=0).save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    script = FULL.format(path=sys.path, limit=limit, folder=str(folder))
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "saving.py").write_text(script)
    done = run_python(scripts, "saving.py")
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout and "untouched" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(sc.SecateurError, match="can't be written"):
        pruned_once("mlp").save(tmp_path / "file" / "out")


IN_ONNX = (
    "residual", "encoder", "inverted residual", "glu by chunk", "dense", "decoder", "shuffles", "einsums",
    "two streams",
    "torch encoder", "torch transformer", "cross attention", "bundles", "bundles as a program", "relative positions",
    "computed weights", "experts", "unequal parts", "selective kernels", "warp", "blocks", "head width", "lstm", "gru",
)  # fmt: skip


@pytest.mark.parametrize("name", IN_ONNX)
def test_law_6_the_cut_model_runs_in_onnxruntime(name: str, tmp_path: Path) -> None:
    result = pruned_once(name)
    batch = result.plan.network.example
    path = tmp_path / "small.onnx"
    assert result.export(path).difference < 1e-3
    session = onnxruntime.InferenceSession(str(path))
    fed = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), batch.tensors, strict=True)}
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(result.model(*batch.args, **batch.kwargs))
    for output, wanted in zip(session.run(None, fed), expected, strict=True):
        assert torch.allclose(torch.from_numpy(output), wanted, rtol=1e-3, atol=1e-4)


def test_law_6_the_cut_model_compiles() -> None:
    result = pruned_once("residual")
    x = result.plan.network.example.args[0]
    with torch.no_grad():
        compiled = torch.compile(result.model, backend="aot_eager")
        assert torch.allclose(compiled(x), result.model(x), atol=1e-5)

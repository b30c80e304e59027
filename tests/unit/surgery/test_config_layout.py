"""`layout="config"`: cuts that the configuration of a model of the transformers library can say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.transformers_models import MODELS, tiny_transformer
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.errors import NameMatchError, OptionError, StorageError, SurgeryError
from secateur.surgery import config_layout_network
from secateur.surgery.config_layout_network import with_config_layout
from secateur.surgery.recipe import Recipe
from secateur.surgery.recipe_checks import check_recipe

pytestmark = [untrained_networks, pytest.mark.usefixtures("programs_kept")]


KINDS = ("channels", "neurons", "residual", "heads", "blocks")
CHEAP: dict[str, Any] = {"by": "l2", "ablation": "zero", "repair": None, "allocation": "uniform", "progress": False}
# The numbers of the configuration that follow, as the library's documentation of each model names them.
SAID = {
    "bert": [{"hidden_size", "num_attention_heads"}, {"intermediate_size"}],
    "vit": [{"hidden_size"}, {"num_attention_heads"}, {"intermediate_size"}],
    "llama": [{"hidden_size"}, {"num_attention_heads", "num_key_value_heads"}, {"intermediate_size"}],
    "qwen": [{"hidden_size"}, {"num_attention_heads", "num_key_value_heads"}, {"intermediate_size"}],
    "gemma": [{"num_attention_heads", "num_key_value_heads"}, {"intermediate_size"}],  # embeddings scale by the width
    "gpt2": [{"n_embd", "n_head"}, {"n_inner"}],
    "t5": [{"num_heads"}, {"d_ff"}],
    "whisper": [{"encoder_ffn_dim"}, {"decoder_ffn_dim"}],
    "mixtral": [{"hidden_size"}, {"num_attention_heads", "num_key_value_heads"}, {"intermediate_size"}],
}
LAYERS = {
    "bert": set(), "vit": {"num_hidden_layers"}, "llama": {"num_hidden_layers"}, "qwen": {"num_hidden_layers"},
    "gemma": {"num_hidden_layers"}, "gpt2": {"n_layer"}, "t5": set(), "whisper": {"encoder_layers", "decoder_layers"},
    "mixtral": {"num_hidden_layers"},
}  # fmt: skip


def output(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**batch).logits
    return logits


def reloaded(model: Any, folder: Path, kind: Any) -> Any:
    model.save_pretrained(folder)
    return kind.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_cut_within_its_configuration_is_loaded_by_its_library(name: str, tmp_path: Path) -> None:
    model, batch = tiny_transformer(name)
    before = model.config.to_dict()
    network = with_config_layout(model, sc.trace(model, batch, kinds=KINDS))
    assert network.layout is not None
    assert sorted(map(sorted, (tie.fields for tie in network.layout.ties))) == sorted(map(sorted, SAID[name]))
    paths = [path for group in network.groups for path in group.block_paths]
    counted = {layers.field for layers in network.layout.layers if any(layers.path in path for path in paths)}
    assert counted == LAYERS[name]
    dropped = [paths[0], paths[-1]] if len(paths) > 2 else paths[:1]
    scores = sc.score(network, by="l2", ablation="zero", only=[name for name in network.by_name if name != "blocks"])
    plan = sc.plan(network, scores, {"units": 0.7}, dropped=dropped)
    small = sc.cut(model, plan)
    assert sum(parameter.numel() for parameter in small.parameters()) == plan.cost.params < plan.dense.params
    loaded = reloaded(small, tmp_path / "library", type(model))
    assert torch.equal(output(loaded, batch), output(small, batch))
    sc.save(small, tmp_path / "recipe")
    assert torch.equal(output(sc.load(tiny_transformer(name)[0], tmp_path / "recipe"), batch), output(small, batch))
    assert model.config.to_dict() == before


def test_prune_with_blocks_and_repair_keeps_to_the_configuration(tmp_path: Path) -> None:
    model, batch = tiny_transformer("llama", 32)
    result = sc.prune(
        model, batch, {"params": 0.7}, layout="config", kinds=KINDS, by="l2", repair="refit", progress=False
    )
    sizes = {len(result.plan.kept[f"model.layers.{index}.mlp.gate_proj"]) for index in range(2)}
    assert len(sizes) == 1 and result.model.config.intermediate_size in sizes
    assert result.plan.cost.params <= 0.7 * result.plan.dense.params
    assert result.model.config.num_hidden_layers == len(result.model.model.layers)
    loaded = reloaded(result.model, tmp_path / "a", type(model))
    assert torch.equal(output(loaded, batch), output(result.model, batch))
    result.save_pretrained(tmp_path / "b")
    again = sc.prune(result.model, batch, {"units": 0.8}, layout="config", **CHEAP)  # the small model is one, too
    assert again.model.config.intermediate_size < result.model.config.intermediate_size


def test_plan_takes_the_layout_with_the_model() -> None:
    model, batch = tiny_transformer("bert")
    network = sc.trace(model, batch)
    scores = sc.score(network, by="l2", ablation="zero")
    with pytest.raises(OptionError, match="give model="):
        sc.plan(network, scores, {"units": 0.5}, layout="config")
    plan = sc.plan(network, scores, {"units": 0.5}, layout="config", model=model, allocation="global")
    layers = [f"bert.encoder.layer.{index}" for index in range(2)]
    assert len({len(plan.kept[f"{layer}.intermediate.dense"]) for layer in layers}) == 1
    least = {  # layers choose their own units
        layer: scores[f"{layer}.intermediate.dense"].values.argsort()[-len(plan.kept[f"{layer}.intermediate.dense"]) :]
        for layer in layers
    }
    assert all(
        plan.kept[f"{layer}.intermediate.dense"].tolist() == least[layer].sort().values.tolist() for layer in layers
    )
    assert sc.cut(model, plan).config.num_attention_heads == len(plan.kept[f"{layers[0]}.attention.self.query"])


def test_sizes_that_are_given_keep_to_the_configuration() -> None:
    model, batch = tiny_transformer("llama")
    with pytest.raises(OptionError, match="says one size for 2 groups"):
        sc.prune(model, batch, {"params": 0.9}, sizes={"model.layers.0.mlp.*": 0.5}, layout="config", **CHEAP)
    result = sc.prune(model, batch, {"params": 0.8}, sizes={"*.mlp.*": 24}, layout="config", **CHEAP)
    assert result.model.config.intermediate_size == 24
    uneven = result.plan.with_kept({"model.layers.0.mlp.*": 12})
    with pytest.raises(SurgeryError, match="do not keep the same fraction"):
        sc.cut(model, uneven)


def test_rounds_keep_layers_alike() -> None:
    model, batch = tiny_transformer("llama")
    result = sc.prune(model, batch, {"units": 0.6}, layout="config", rounds=2, **CHEAP)
    assert len({len(units) for name, units in result.plan.kept.items() if "mlp" in name}) == 1


def test_what_no_configuration_says_is_refused_before_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    def unscored(*_: Any, **__: Any) -> None:
        raise AssertionError("scored")

    model, batch = tiny_transformer("bert")
    monkeypatch.setattr("secateur.pruning.stages.score", unscored)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    with pytest.raises(OptionError, match="needs a model of the transformers library"):
        sc.prune(plain, torch.randn(8, 4), {"units": 0.5}, layout="config")
    with pytest.raises(OptionError, match="has no number that says fewer"):
        sc.prune(model, batch, {"units": 0.5}, layout="config", kinds="heads")
    with pytest.raises(OptionError, match="layout='config' can't be combined with as_program=True"):
        sc.prune(model, batch, {"units": 0.5}, layout="config", as_program=True)
    with pytest.raises(NameMatchError, match="layout='square' is unknown"):
        sc.prune(model, batch, {"units": 0.5}, layout="square")
    model.config.intermediate_size = 47
    with pytest.raises(OptionError, match="does not say the shapes of its tensors"):
        sc.prune(model, batch, {"units": 0.5}, layout="config")


def test_a_layout_that_is_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny_transformer("bert")
    network = sc.trace(model, batch)
    monkeypatch.setattr(config_layout_network.LayoutSearch, "difference", lambda *_: "differs")
    with pytest.raises(OptionError, match="has no number that says fewer"):
        with_config_layout(model, network)


def test_a_damaged_configuration_is_not_loaded() -> None:
    model, _ = tiny_transformer("llama")
    for config, lists in (
        ({"intermediate_size": 49}, {}), ({"__class__": 1}, {}), ({}, {"model.layers": "vocab_size"}),
        ({}, {"model": "num_hidden_layers"}),
    ):  # fmt: skip
        with pytest.raises(StorageError, match="configuration"):
            check_recipe(model, Recipe({}, {}, {}, {}, {}, {}, {}, config=config, layer_lists=lists))


def test_an_optimizer_loses_the_parameters_of_blocks_and_follows_those_behind() -> None:
    model, batch = tiny_transformer("llama")
    optimizer = torch.optim.Adam(model.parameters())
    model(**batch, labels=batch["input_ids"]).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    network = with_config_layout(model, sc.trace(model, batch, kinds=("neurons", "blocks")))
    scores = sc.score(network, by="l2", ablation="zero", only="model*")
    plan = sc.plan(network, scores, {"units": 0.9}, dropped="model.layers.0")
    small = sc.cut(model, plan, optimizer=optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in parameters} == {id(parameter) for parameter in small.parameters()}
    assert all(optimizer.state[parameter]["exp_avg"].shape == parameter.shape for parameter in parameters)


def test_a_trainers_checkpoint_of_the_small_model_is_loaded(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model, batch = tiny_transformer("llama")
    small = sc.prune(model, batch, {"params": 0.8}, layout="config", **CHEAP).model
    options = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to=[],
        disable_tqdm=True,
    )  # fmt: skip
    rows = [{"input_ids": row, "labels": row} for row in batch["input_ids"]]
    transformers.Trainer(small, options, train_dataset=rows).train()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2").eval()
    assert torch.equal(output(loaded, batch), output(small.eval(), batch))


def test_compare_and_tradeoff_keep_to_the_configuration(tmp_path: Path) -> None:
    model, batch = tiny_transformer("llama", 32)
    comparison = sc.compare(
        model, batch, ("l2", "random"), {"params": 0.8}, layout="config", repair=None, test=batch, progress=False
    )
    assert len(comparison.trials) == 2 and {trial.by for trial in comparison.trials} == {"l2", "random"}
    curve = sc.tradeoff(model, batch, {"params": (0.9, 0.7)}, layout="config", test=batch, **CHEAP)
    for point in curve.points:
        sizes = {len(point.result.plan.kept[f"model.layers.{index}.mlp.gate_proj"]) for index in range(2)}
        assert sizes == {point.result.model.config.intermediate_size}
        loaded = reloaded(point.result.model, tmp_path / point.budget, type(model))
        assert torch.equal(output(loaded, batch), output(point.result.model, batch))


class NeverScores:
    """A criterion that a test fails by if anything is scored."""

    __name__ = "never"

    def __call__(self, network: object, context: object) -> dict[str, Tensor]:
        raise AssertionError("scored before the settings were refused")


@pytest.mark.parametrize("verb", [sc.compare, sc.tradeoff, sc.prune])
def test_sizes_and_layouts_that_can_not_be_kept_are_refused_before_anything_is_scored(verb: Any) -> None:
    model, batch = tiny_transformer("llama", 32)
    by = [NeverScores()] if verb is sc.compare else NeverScores()
    settings: dict[str, Any] = {"keep": {"params": 0.9}, "by": by, "repair": None, "progress": False}
    with pytest.raises(OptionError, match="says one size for 2 groups"):
        verb(model, batch, sizes={"model.layers.0.mlp.*": 0.5}, layout="config", **settings)
    with pytest.raises(NameMatchError, match="nothing"):
        verb(model, batch, sizes={"nothing": 0.5}, **settings)
    with pytest.raises(OptionError, match="needs a model of the transformers library"):
        verb(
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(32, 4), layout="config", **settings
        )

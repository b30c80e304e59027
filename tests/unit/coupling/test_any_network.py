"""The choices of kinds of units, whole blocks and programs, and networks of the transformers library."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.report.network_page import network_page
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.validate import _with_larger_minimum
from zoo import grow

pytestmark = untrained_networks


def test_only_the_kinds_that_were_asked_for() -> None:
    model, example = grow("encoder fused")
    assert {group.kind for group in sc.trace(model, example).groups} == {"residual", "heads", "neurons"}
    network = sc.trace(model, example, kinds=["heads", "neurons"])
    assert {group.name for group in network.groups} == {"attention.qkv", "up"}
    assert any(frozen.reason == "residual were not asked for" for frozen in network.frozen)
    convolutions, image = grow("vgg")
    assert {group.kind for group in sc.trace(convolutions, image, kinds="channels").groups} == {"channels"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "filters"}, "no kind of units is named"),
        ({"kinds": []}, r"kinds=\[\] \(list\) can.t be used"),
        ({"kinds": "blocks", "as_program": True}, "blocks are cut from the model.s own modules"),
        ({"kinds": ["heads", "head width"]}, "heads go whole, or all of them get narrower"),
    ],
)
def test_unknown_kinds_are_refused(options: dict[str, object], message: str) -> None:
    model, example = grow("blocks")
    with pytest.raises(sc.SecateurError, match=message):
        sc.trace(model, example, **options)


def test_without_a_block_the_skip_alone_remains(tmp_path: Path) -> None:
    model, example = grow("blocks")
    network = sc.trace(model, example, kinds="blocks")
    assert network["blocks"].block_paths == ("first.0", "first.1", "second.0", "second.1")
    kept = {"blocks": torch.tensor([0, 2, 3])}
    small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
    x = model.first[0](model.stem(example))
    for block in model.second:
        x = block(x) if block is not model.second[0] else block(model.widen(x))
    assert torch.allclose(small(example), model.last(x), atol=1e-6)
    scores = sc.score(network, [example], by="shapley", progress=False, loss=lambda out, _: out.square().sum(1))
    assert len(scores["blocks"].values) == 4 and (scores["blocks"].values != 0).all()
    result = sc.prune(
        model, [example], {"params": 0.6}, by="shapley", kinds="blocks", progress=False,
        loss=lambda out, _: out.square().sum(1),
    )  # fmt: skip
    result.save(tmp_path)
    loaded = sc.load(grow("blocks", seed=5)[0], tmp_path)
    assert torch.equal(loaded(example), result.model(example))
    nothing = sc.plan(network, scores, {"units": 0.01}, floor=0)
    assert nothing.kept["blocks"].tolist() == []
    bare = sc.cut(model, nothing)
    assert torch.allclose(bare(example), model.last(model.widen(model.stem(example))), atol=1e-6)


def test_a_whole_program_is_cut_saved_and_repaired(tmp_path: Path) -> None:
    model, example = grow("hard-wired")
    result = sc.prune(model, [example], {"params": 0.6}, by="l2", as_program=True, progress=False)
    assert len(result.plan.kept["qkv"]) < 4
    batch = torch.randn(7, 5, 12)
    assert result.model(batch).shape == model(batch).shape
    result.save(tmp_path)
    loaded = sc.load(model, tmp_path)
    assert torch.equal(loaded(batch), result.model(batch))
    assert torch.export.load(tmp_path / "model.pt2").module()(batch).shape == model(batch).shape
    network = result.plan.network
    with pytest.raises(sc.SecateurError, match="a program is cut as a copy"):
        sc.cut(model, result.plan, inplace=True)
    assert network.as_program
    more = torch.randn(200, 5, 12)
    plan = sc.plan(network, sc.score(network, by="l2"), {"params": 0.6})
    small = sc.cut(model, plan)
    before = float((small(more) - model(more)).square().mean().detach())
    sc.repair(small, model, plan, more)
    assert float((small(more) - model(more)).square().mean().detach()) < 0.8 * before
    (tmp_path / "model.pt2").write_bytes(b"PK")
    with pytest.raises(sc.SecateurError, match=r"model.pt2 does not belong to"):
        sc.load(model, tmp_path)


def test_heads_that_take_their_width_from_the_stream_go_in_bundles() -> None:
    model, example = grow("bundles")
    (bundle,) = (group for group in sc.trace(model, example).groups if group.kind == "bundles")
    owned = {str(member) for member in bundle.members}
    assert {"embed.weight[0]", "attention.qkv.weight[0]", "attention.qkv.weight[1]", "attention.out.weight[0]"} <= owned


class Aligned(nn.Module):
    """A kernel that insists on multiples of four, as some do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(x))
        if x.shape[-1] % 4:
            raise RuntimeError("strides should be multiple of 16 bytes")
        return self.last(x)


def test_steps_that_a_kernel_insists_on_are_found() -> None:
    model, example = Aligned().eval(), torch.randn(3, 5)
    network = sc.trace(model, example)
    assert network["first"].multiple == 4
    plan = sc.plan(network, sc.score(network, by="l2"), {"params": 0.6})
    assert len(plan.kept["first"]) == 8
    assert sc.cut(model, plan)(example).shape == (3, 3)


class Demanding(nn.Module):
    """Asks for a number of neurons that can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.least = nn.Linear(5, 16), nn.Linear(16, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(x))
        if x.shape[-1] < self.least:
            raise RuntimeError("too few")
        return self.last(x)


def test_the_fewest_that_may_stay_is_only_ever_raised() -> None:
    model = Demanding().eval()
    network = sc.trace(model, torch.randn(3, 5))
    assert network["first"].fewest == 1
    chosen_from = replace(network, groups=(replace(network["first"], fewest=3),))
    model.least = 4
    assert _with_larger_minimum(TrialCutter(model), chosen_from)["first"].fewest == 4
    model.least = 3
    assert _with_larger_minimum(TrialCutter(model), chosen_from)["first"].fewest == 3


class Sized(nn.Module):
    """Two numbers of the same value, of which each counts something else."""

    def __init__(self) -> None:
        super().__init__()
        self.groups_of, self.planes = 6, 6
        self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.a(x)).view(-1, self.planes, 1)
        b = F.silu(self.b(x)).view(-1, 1, self.groups_of)
        return self.last((a * b).sum(1))


def test_attributes_are_found_by_trying() -> None:
    model, example = Sized().eval(), torch.randn(3, 4)
    network = sc.trace(model, example)
    sizes = {group.name: group.size for group in network.groups}
    assert sizes.get("b", 6) == 6 and not {mend.attribute for mend in network.attribute_updates} - {
        "groups_of",
        "planes",
    }
    for group in network.groups:
        kept = {group.name: torch.arange(3)}
        small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
        assert small(example).shape == (3, 2)
    assert (model.groups_of, model.planes) == (6, 6)


def test_the_picture_names_every_group_and_why_others_are_frozen() -> None:
    model, example = grow("torch transformer")
    network = sc.trace(model, example)
    page = network_page(network)
    assert all(group.name in page for group in network.groups)
    assert all(frozen.name in page for frozen in network.frozen) and "is the network&#39;s output" in page


def test_a_mask_that_happens_to_be_causal_does_not_end_the_export() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerDecoderLayer(16, 4, 10, batch_first=True)
            self.decoder, self.last = nn.TransformerDecoder(layer, 1), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.last(self.decoder(x, x, tgt_mask=mask))

    network = sc.trace(Decoder().eval(), torch.randn(2, 5, 16))
    assert {group.kind for group in network.groups} == {"heads", "neurons"}


def test_transformers_in_their_own_format(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")  # a development dependency
    config = transformers.LlamaConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=80,
        vocab_size=99, max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    data = [{"input_ids": torch.randint(3, 90, (2, 9))}]
    options = {"by": "l1", "ablation": "zero", "repair": None, "progress": False}
    result = sc.prune(model, data, {"params": 0.8}, round_to=4, **options)
    result.save_pretrained(tmp_path / "small")
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(loaded(**data[0]).logits, result.model(**data[0]).logits)
    assert loaded.config.hidden_size < 48 and loaded.config.intermediate_size < 80
    uneven = sc.prune(model, data, {"params": 0.8}, allocation="global", **options)
    with pytest.raises(sc.SecateurError, match="no configuration of LlamaConfig says this shape"):
        uneven.save_pretrained(tmp_path / "uneven")
    assert not (tmp_path / "uneven").exists()
    convolutions, image = grow("vgg")
    other = sc.prune(convolutions, [image], {"params": 0.8}, **options)
    with pytest.raises(sc.SecateurError, match="is not a model of the transformers library"):
        other.save_pretrained(tmp_path / "other")

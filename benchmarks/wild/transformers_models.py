"""transformers: language, speech and vision models, each a tiny configuration."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wild.definitions import Definition, images

WIDTH = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
TEXT = {**WIDTH, "vocab_size": 99, "max_position_embeddings": 64}
LLAMA = {**TEXT, "num_key_value_heads": 2, "use_cache": False}


def model_of(config: str, model: str, **options: Any) -> Callable[[], nn.Module]:
    """Return a function that builds a model with random weights.

    Args:
        config: the name of the class of its configuration.
        model: the name of its class.
        options: the configuration.
    """

    def make() -> nn.Module:
        import transformers

        network = getattr(transformers, model)(getattr(transformers, config)(**options))
        assert isinstance(network, nn.Module)
        return network

    return make


def ids(length: int = 9, **others: Any) -> Callable[[], dict[str, Tensor]]:
    """Return a function that draws two sequences of tokens, of which the first has three tokens of padding."""

    def make() -> dict[str, Tensor]:
        tokens = torch.randint(3, 90, (2, length))
        mask = torch.ones_like(tokens)
        mask[0, -3:] = 0
        return {"input_ids": tokens, "attention_mask": mask, **others}

    return make


def causal(length: int = 9) -> Callable[[], dict[str, Tensor]]:
    """Return a function that draws two sequences of tokens."""
    return lambda: {"input_ids": torch.randint(3, 90, (2, length))}


def pairs() -> dict[str, Tensor]:
    """Draw the tokens of an encoder and of a decoder."""
    return {"input_ids": torch.randint(3, 90, (2, 9)), "decoder_input_ids": torch.randint(3, 90, (2, 5))}


def pixels(size: int = 32) -> Callable[[], dict[str, Tensor]]:
    """Return a function that draws two images."""
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def _text_definition(config: str, model: str, **options: Any) -> Definition:
    return Definition(model_of(config, model, **{**TEXT, **options}), ids())


def _uncached_causal(config: str, model: str, **options: Any) -> Definition:
    return Definition(model_of(config, model, **{**LLAMA, **options}), causal())


def _clip() -> Definition:
    from transformers import CLIPTextConfig, CLIPVisionConfig

    text = {**TEXT, "eos_token_id": 98, "bos_token_id": 97, "pad_token_id": 1}
    vision = {**WIDTH, "image_size": 32, "patch_size": 8}
    make = model_of("CLIPConfig", "CLIPModel", text_config=CLIPTextConfig(**text).to_dict(),
                  vision_config=CLIPVisionConfig(**vision).to_dict(), projection_dim=24)  # fmt: skip
    return Definition(
        make, lambda: {"input_ids": torch.randint(3, 90, (2, 9)), "pixel_values": torch.randn(2, 3, 32, 32)}
    )


def _detr() -> Definition:
    from transformers import ResNetConfig

    backbone = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
                            out_features=["stage4"])  # fmt: skip
    make = model_of("DetrConfig", "DetrForObjectDetection", use_timm_backbone=False, use_pretrained_backbone=False,
                  backbone=None, backbone_config=backbone, d_model=48, encoder_layers=2, decoder_layers=2,
                  encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=80, decoder_ffn_dim=80,
                  num_queries=7, num_labels=5)  # fmt: skip
    return Definition(make, pixels(64))


def _encoders() -> dict[str, Definition]:
    """Return encoders of text."""
    return {
        "bert": _text_definition("BertConfig", "BertForSequenceClassification"),
        "distilbert": Definition(
            model_of("DistilBertConfig", "DistilBertForSequenceClassification", vocab_size=99, dim=48, n_layers=2,
                   n_heads=4, hidden_dim=80, max_position_embeddings=64), ids()),
        "roberta": _text_definition("RobertaConfig", "RobertaForMaskedLM"),
        "electra": _text_definition("ElectraConfig", "ElectraModel", embedding_size=24),
        "albert": _text_definition("AlbertConfig", "AlbertModel", embedding_size=24),
        "deberta": _text_definition("DebertaV2Config", "DebertaV2Model", relative_attention=True,
                                    pos_att_type=["p2c", "c2p"]),
        "mpnet": _text_definition("MPNetConfig", "MPNetModel"),
    }  # fmt: skip


def _decoders() -> dict[str, Definition]:
    """Return decoders of text."""
    return {
        "gpt2": Definition(model_of("GPT2Config", "GPT2LMHeadModel", vocab_size=99, n_embd=48, n_layer=2, n_head=4,
                                  n_positions=64, use_cache=False), causal()),
        "gpt_neox": _uncached_causal("GPTNeoXConfig", "GPTNeoXForCausalLM"),
        "opt": Definition(model_of("OPTConfig", "OPTForCausalLM", vocab_size=99, hidden_size=48, num_hidden_layers=2,
                                 num_attention_heads=4, ffn_dim=80, max_position_embeddings=64, word_embed_proj_dim=48,
                                 use_cache=False), causal()),
        "bloom": Definition(model_of("BloomConfig", "BloomForCausalLM", vocab_size=99, hidden_size=48, n_layer=2,
                                   n_head=4, use_cache=False), causal()),
        "llama": _uncached_causal("LlamaConfig", "LlamaForCausalLM"),
        "mistral": _uncached_causal("MistralConfig", "MistralForCausalLM"),
        "qwen2": _uncached_causal("Qwen2Config", "Qwen2ForCausalLM"),
        "qwen3": _uncached_causal("Qwen3Config", "Qwen3ForCausalLM", head_dim=12),
        "gemma": _uncached_causal("GemmaConfig", "GemmaForCausalLM", head_dim=12),
        "phi": _uncached_causal("PhiConfig", "PhiForCausalLM", num_key_value_heads=4),
        "mixtral": _uncached_causal("MixtralConfig", "MixtralForCausalLM", num_local_experts=4),
        "qwen2_moe": _uncached_causal("Qwen2MoeConfig", "Qwen2MoeForCausalLM", num_experts=4,
                                      moe_intermediate_size=40, shared_expert_intermediate_size=48),
    }  # fmt: skip


def _sequence_models() -> dict[str, Definition]:
    """Return encoders with decoders, and models of speech."""
    speech = {"vocab_size": 40, "conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2),
              "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}  # fmt: skip
    t5 = {"vocab_size": 99, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_layers": 2, "num_heads": 4, "use_cache": False}
    bart = {"vocab_size": 99, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80, "max_position_embeddings": 64,
            "use_cache": False}  # fmt: skip
    whisper = {**bart, "num_mel_bins": 20, "max_source_positions": 16, "max_target_positions": 32, "pad_token_id": 0,
               "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip
    return {
        "t5": Definition(model_of("T5Config", "T5ForConditionalGeneration", **t5), pairs),
        "t5_gated": Definition(model_of("T5Config", "T5ForConditionalGeneration", **t5,
                                      feed_forward_proj="gated-gelu", tie_word_embeddings=False), pairs),
        "bart": Definition(model_of("BartConfig", "BartForConditionalGeneration", **bart), pairs),
        "whisper": Definition(model_of("WhisperConfig", "WhisperForConditionalGeneration", **whisper),
                              lambda: {"input_features": torch.randn(2, 20, 32),
                                       "decoder_input_ids": torch.randint(3, 90, (2, 5))}),
        "wav2vec2": Definition(model_of("Wav2Vec2Config", "Wav2Vec2ForCTC", **WIDTH, **speech),
                               lambda: {"input_values": torch.randn(2, 800)}),
        "hubert": Definition(model_of("HubertConfig", "HubertModel", **WIDTH, **speech),
                             lambda: {"input_values": torch.randn(2, 800)}),
    }  # fmt: skip


def _vision_models() -> dict[str, Definition]:
    """Return models of images."""
    vision = {**WIDTH, "image_size": 32, "patch_size": 8, "num_labels": 6}
    return {
        "clip": _clip(),
        "vit": Definition(model_of("ViTConfig", "ViTForImageClassification", **vision), pixels()),
        "dinov2": Definition(model_of("Dinov2Config", "Dinov2Model", **vision), pixels()),
        "beit": Definition(model_of("BeitConfig", "BeitForImageClassification", **vision), pixels()),
        "convnext": Definition(model_of("ConvNextConfig", "ConvNextForImageClassification",
                                      hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1]), pixels(64)),
        "swin": Definition(model_of("SwinConfig", "SwinForImageClassification", image_size=32, patch_size=4,
                                  embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4), pixels()),
        "segformer": Definition(model_of("SegformerConfig", "SegformerForSemanticSegmentation",
                                       hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
                                       num_attention_heads=[1, 2, 4, 4], decoder_hidden_size=32), pixels(64)),
        "resnet": Definition(model_of("ResNetConfig", "ResNetForImageClassification", embedding_size=16,
                                    hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic"), images(32)),
        "detr": _detr(),
    }  # fmt: skip


DEFINITIONS = {
    f"transformers/{name}": definition
    for definitions in (_encoders(), _decoders(), _sequence_models(), _vision_models())
    for name, definition in definitions.items()
}

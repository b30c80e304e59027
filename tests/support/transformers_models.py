"""Tiny models of the transformers library with random weights, and batches of their inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

VOCABULARY = 64
DECODER = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _llama(library: Any) -> Any:
    return library.LlamaForCausalLM(library.LlamaConfig(**DECODER))


def _qwen(library: Any) -> Any:
    return library.Qwen2ForCausalLM(library.Qwen2Config(**DECODER))


def _gemma(library: Any) -> Any:
    """Sliding windows in every other layer, tied embeddings."""
    layers = {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8}
    return library.Gemma2ForCausalLM(library.Gemma2Config(**DECODER, **layers))


def _gpt2(library: Any) -> Any:
    config = library.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    )
    return library.GPT2LMHeadModel(config)


def _bert(library: Any) -> Any:
    config = library.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, num_labels=3, **ENCODER)
    return library.BertForSequenceClassification(config)


def _vit(library: Any) -> Any:
    return library.ViTForImageClassification(library.ViTConfig(image_size=16, patch_size=4, num_labels=3, **ENCODER))


def _t5(library: Any) -> Any:
    config = library.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return library.T5ForConditionalGeneration(config)


def _whisper(library: Any) -> Any:
    config = library.WhisperConfig(
        vocab_size=VOCABULARY, num_mel_bins=8, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48,
        encoder_attention_heads=4, decoder_attention_heads=4, decoder_ffn_dim=48, max_source_positions=20,
        max_target_positions=20, decoder_start_token_id=1, **TOKENS,
    )  # fmt: skip
    return library.WhisperForConditionalGeneration(config)


def _mixtral(library: Any) -> Any:
    return library.MixtralForCausalLM(library.MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2))


MODELS: Mapping[str, Callable[[Any], Any]] = {
    "bert": _bert, "vit": _vit, "llama": _llama, "qwen": _qwen, "gemma": _gemma, "gpt2": _gpt2, "t5": _t5,
    "whisper": _whisper, "mixtral": _mixtral,
}  # fmt: skip


def tiny_transformer(name: str, examples: int = 8) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a tiny model and a batch of its inputs; skip the test where the library is not installed."""
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = MODELS[name](library).eval()
    tokens = torch.randint(3, VOCABULARY, (examples, 10))
    if name == "vit":
        return model, {"pixel_values": torch.randn(examples, 3, 16, 16)}
    if name == "whisper":
        return model, {"input_features": torch.randn(examples, 8, 40), "decoder_input_ids": tokens[:, :6]}
    decoder_inputs = {"decoder_input_ids": tokens[:, :6]} if name == "t5" else {}
    return model, {"input_ids": tokens, **decoder_inputs}

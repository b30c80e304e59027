"""SmolLM2-135M, the text to prune it with, the text to test it on, and its perplexity."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_smollm2(data: Path) -> tuple[Any, Tensor, Tensor]:
    """Return the network in evaluation mode and the tokens of WikiText-2's validation and test texts, (tokens,) each.

    Args:
        data: the folder of the weights and of `wikitext2.zip`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 (needs packages that others don't)

    model = AutoModelForCausalLM.from_pretrained(data, gguf_file=WEIGHTS, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(data, gguf_file=WEIGHTS)
    with zipfile.ZipFile(data / "wikitext2.zip") as files:
        texts = [files.read(f"{name}.txt").decode()[:200_000] for name in ("valid", "test")]
    valid, test = (torch.tensor(tokenizer(text)["input_ids"]) for text in texts)
    return model, valid, test


@torch.no_grad()
def perplexity(model: nn.Module, windows: Tensor) -> dict[str, float]:
    """Return the exponential of the mean loss of the next token, each window by itself.

    Args:
        model: a causal language model.
        windows: tokens (windows, length).
    """
    device = next(model.parameters()).device
    losses = []
    for window in windows.to(device).split(1):
        scores = model(input_ids=window, use_cache=False).logits
        losses.append(F.cross_entropy(scores[0, :-1].float(), window[0, 1:], reduction="sum").double())
    return {"perplexity": float((torch.stack(losses).sum() / (windows[:, 1:].numel())).exp())}

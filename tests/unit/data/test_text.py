"""`text_batches`: batches of tokens from strings."""

from typing import Any

import pytest
import torch

import secateur as sc
from secateur.errors import DataError, OptionError


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


class Library:
    """A tokenizer with the interface of the transformers library."""

    pad_token_id = 9

    def convert_tokens_to_ids(self, token: str) -> int:
        return ord(token)

    def __call__(self, text: str, add_special_tokens: bool, truncation: bool, verbose: bool) -> dict[str, list[int]]:
        assert not truncation and not verbose
        return {"input_ids": [1, *letters(text), 2] if add_special_tokens else letters(text)}


def test_windows_of_the_joined_text() -> None:
    batches = sc.text_batches(letters, ["abcd", " ", "efghi"], length=3, batch_size=2)
    text = "".join(chr(token) for batch in batches for row in batch["input_ids"] for token in row)
    assert text == "abcd\n\nefg"  # the tokens behind the last whole window are left out
    assert [batch.keys() for batch in batches] == [{"input_ids", "labels"}] * 2
    assert all(torch.equal(batch["labels"], batch["input_ids"]) for batch in batches)
    (first,) = sc.text_batches(letters, "abcdefghi", length=3, sequences=2, labels=False)
    assert first.keys() == {"input_ids"} and first["input_ids"].shape == (2, 3)


@pytest.mark.parametrize(("tokenizer", "row"), [(letters, "abcd"), (Library(), "\1abc")])
def test_text_batches_pad_rows(tokenizer: Any, row: str) -> None:
    (batch,) = sc.text_batches(tokenizer, ["abcdefgh", "x"], length=4, joined=False)
    assert batch["input_ids"][0].tolist() == letters(row)  # truncated
    lengths = batch["attention_mask"].sum(1).tolist()
    assert lengths == [4, 3 if isinstance(tokenizer, Library) else 1]
    assert torch.equal(batch["labels"] == -100, batch["attention_mask"] == 0)
    assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {getattr(tokenizer, "pad_token_id", 0)}


def test_the_library_tokenizers() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (batch,) = sc.text_batches(tokenizer, ["a b", "b a c"], length=5)
    assert batch["input_ids"].tolist() == [[0, 1, 1, 0, 2]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": []}, DataError, "holds no text"),
        ({"texts": ["abc"], "length": 4}, DataError, "3 tokens, fewer than one window of length=4"),
        ({"texts": [b"abc"]}, DataError, "give strings"),
        ({"texts": "abc", "length": 0}, OptionError, "whole number of tokens"),
        ({"texts": "a b", "tokenizer": str.split}, OptionError, "from a string to a list of token numbers"),
        ({"texts": "abc", "tokenizer": 3}, OptionError, "from a string to a list of token numbers"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sc.text_batches(**{"tokenizer": letters, **arguments})

"""Batches of tokens from strings: windows of the joined texts, or one padded row for each text."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from secateur.data.next_tokens import IGNORED_LABEL
from secateur.errors import DataError, OptionError
from secateur.options import kind_text
from secateur.options.call_checks import checked_calls
from secateur.options.table import check_option


@checked_calls
def text_batches(
    tokenizer: Any,
    texts: str | Iterable[str],
    *,
    length: int = 256,
    batch_size: int = 8,
    joined: bool = True,
    sequences: int | None = None,
    labels: bool = True,
) -> list[dict[str, Tensor]]:
    """Make batches of tokens from strings, as `data` of all functions.

    Args:
        tokenizer: a tokenizer of the transformers library, a `tokenizers.Tokenizer`, or a function from a string to a
            list of token numbers.
        texts: the texts, or one text.
        length: the number of tokens of a row; with `joined=False` the most tokens.
        batch_size: the number of rows of a batch.
        joined: whether all texts are joined and cut into windows of `length` tokens, as perplexities are measured. No
            row is padded, and the tokens behind the last whole window are left out. False: each text is one row, with
            the tokenizer's special tokens; longer texts are truncated, shorter ones are padded to the longest of their
            batch, with an `attention_mask`. Padded tokens count nowhere.
        sequences: the most rows; all by default.
        labels: whether the tokens are also given as `labels`, -100 where they are padded. With labels the loss of a
            causal language model is the cross entropy of the next token, without it is the divergence from the dense
            model's distribution of the next token. False for models whose output is no distribution of tokens.

    Returns:
        Dicts of `input_ids`, `attention_mask` where rows are padded, and `labels`. (batch_size, length) each

    Raises:
        DataError: there is no text, or fewer tokens than one window.
        OptionError: an argument can't be used.

    Examples:
        >>> import secateur as sc
        >>> tokenizer = lambda text: [ord(letter) % 32 for letter in text]
        >>> batches = sc.text_batches(tokenizer, ["a small text", "and another one"], length=4, batch_size=3)
        >>> [tuple(batch["input_ids"].shape) for batch in batches]
        [(3, 4), (3, 4), (1, 4)]
        >>> sc.text_batches(tokenizer, ["abc", "a"], joined=False)[0]["attention_mask"]
        tensor([[1, 1, 1],
                [1, 0, 0]])
    """
    for name, value in (("length", length), ("batch_size", batch_size), ("sequences", sequences)):
        check_option(name, value)
    strings = _strings(texts)
    rows = _windows(tokenizer, strings, length, sequences) if joined else _rows(tokenizer, strings, length, sequences)
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [_pad_token_rows(chunk, _padding_token(tokenizer), not joined, labels) for chunk in chunks]


def _strings(texts: str | Iterable[str]) -> list[str]:
    """Return the texts that have characters.

    Raises:
        DataError: there is none, or one is no string.
    """
    text_list = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else [texts]
    for text in text_list:
        if not isinstance(text, str):
            raise DataError(f"texts holds {kind_text(text)}; give strings")
    strings = [text for text in text_list if text.strip()]
    if not strings:
        raise DataError("texts holds no text; a generator that was used up gives none, so pass a list of strings")
    return strings


def _windows(tokenizer: Any, texts: Sequence[str], length: int, sequences: int | None) -> list[list[int]]:
    """Return windows of the tokens of all texts.

    Raises:
        DataError: there are fewer tokens than one window.
    """
    tokens = _tokens(tokenizer, "\n\n".join(texts), special=False)
    count = len(tokens) // length
    if not count:
        raise DataError(
            f"the texts have {len(tokens)} tokens, fewer than one window of length={length}; give more text, a smaller "
            "length, or joined=False"
        )
    count = count if sequences is None else min(count, sequences)
    return [tokens[number * length : (number + 1) * length] for number in range(count)]


def _rows(tokenizer: Any, texts: Sequence[str], length: int, sequences: int | None) -> list[list[int]]:
    """Return the tokens of each text, truncated."""
    rows = (_tokens(tokenizer, text, special=True)[:length] for text in texts[:sequences])
    return [row for row in rows if row]


def _tokens(tokenizer: Any, text: str, special: bool) -> list[int]:
    """Return the tokens of a text.

    Args:
        tokenizer: as `text_batches` takes it.
        text: the text.
        special: whether the tokenizer adds its special tokens.

    Raises:
        OptionError: it is no tokenizer.
    """
    if hasattr(tokenizer, "encode_batch"):  # tokenizers.Tokenizer
        return list(tokenizer.encode(text, add_special_tokens=special).ids)
    if hasattr(tokenizer, "convert_tokens_to_ids"):  # the transformers library
        return list(tokenizer(text, add_special_tokens=special, truncation=False, verbose=False)["input_ids"])
    tokens = tokenizer(text) if callable(tokenizer) else None
    if not isinstance(tokens, Sequence) or not all(isinstance(token, Integral) for token in tokens):
        raise OptionError(
            f"tokenizer is {kind_text(tokenizer)}; give one of the libraries transformers or tokenizers, or a function "
            "from a string to a list of token numbers"
        )
    return list(tokens)


def _padding_token(tokenizer: Any) -> int:
    """Return the token that stands for padding; any will do, as it is masked."""
    return int(getattr(tokenizer, "pad_token_id", None) or 0)


def _pad_token_rows(rows: Sequence[Sequence[int]], token: int, has_mask: bool, has_labels: bool) -> dict[str, Tensor]:
    """Return rows as one batch."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[token] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    batch = {"input_ids": ids, "attention_mask": mask} if has_mask else {"input_ids": ids}
    return {**batch, "labels": ids.masked_fill(mask == 0, IGNORED_LABEL)} if has_labels else batch

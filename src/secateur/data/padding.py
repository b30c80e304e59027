"""Padded sequences as batches without padding, so that no padded token counts as an example anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch, concat_batches
from secateur.data.decoder_inputs import decoder_label_mask

MASK, DECODER_MASK = "attention_mask", "decoder_attention_mask"
DECODER = "decoder_"
BY_POSITION = ("embeds", "hidden", "features", "values")  # in names of floating-point inputs with positions

Spans = Mapping[str, tuple[int, int, int]]  # by mask: first token, end of the tokens, length of the mask


def without_padding(batches: Sequence[Batch], batch_size: int, model: nn.Module | None = None) -> list[Batch]:
    """Return batches in which no row is padded: rows without their padding, with those of the same length.

    Padding is where `attention_mask` (or `decoder_attention_mask`) is 0 before or behind the tokens of a row. Where a
    decoder's tokens are made from labels and have no mask, padding is behind the last label that counts. Batches
    without padding, or with zeros between tokens, stay as they are.

    Args:
        batches: the batches.
        batch_size: the most rows of a new batch.
        model: the model, which may make a decoder's tokens from labels; None if it is not known.
    """
    result: list[Batch] = []
    groups: dict[tuple[Any, ...], list[Batch]] = {}
    for batch in batches:
        spans = _spans(batch, model)
        if spans is None:
            result.append(batch)
            continue
        for row, row_spans in enumerate(spans):
            example = _trim_row(batch.take(torch.tensor([row])), row_spans)
            groups.setdefault(_row_form(example), []).append(example)
    longest = sorted(groups, key=lambda form: -_entries(groups[form][0]))[:1]  # the first batch is traced
    for form in dict.fromkeys((*longest, *groups)):
        examples = groups[form]
        for start in range(0, len(examples), batch_size):
            joined_batch = concat_batches(examples[start : start + batch_size])
            result.append(replace(joined_batch, has_labels=examples[start].has_labels))
    return result


def _spans(batch: Batch, model: nn.Module | None) -> list[Spans] | None:
    """Return where the tokens of each row are by each of its masks; None without padding."""
    masks = {name: batch.kwargs.get(name) for name in (MASK, DECODER_MASK)}
    if masks[DECODER_MASK] is None:
        masks[DECODER_MASK] = decoder_label_mask(model, batch)
    tensors = {name: mask for name, mask in masks.items() if isinstance(mask, Tensor) and _is_mask(mask, batch)}
    if not tensors or not batch.is_divisible or all(bool(mask.bool().all()) for mask in tensors.values()):
        return None
    spans: list[dict[str, tuple[int, int, int]]] = [{} for _ in range(batch.size or 0)]
    for name, mask in tensors.items():
        for row, present in enumerate(mask.bool().cpu()):
            positions = torch.nonzero(present).flatten()
            if not len(positions) or int(positions[-1]) - int(positions[0]) + 1 != len(positions):
                return None  # nothing but padding, or holes, which are no padding
            spans[row][name] = int(positions[0]), int(positions[-1]) + 1, len(present)
    return list(spans)


def _is_mask(mask: Tensor, batch: Batch) -> bool:
    return mask.dim() == 2 and mask.shape[0] == batch.size and bool(((mask == 0) | (mask == 1)).all())


def _trim_row(example: Batch, spans: Spans) -> Batch:
    """Return one row without its padding."""
    inputs = {name: _slice(name, value, spans) for name, value in example.kwargs.items()}
    name = f"{DECODER}target" if any(name.startswith(DECODER) for name in example.kwargs) else "target"
    return replace(example, kwargs=inputs, target=_slice(name, example.target, spans))


def _slice(name: str, value: Any, spans: Spans) -> Any:
    """Return an input or a target of one row without the padding of the mask that it belongs to."""
    mask = DECODER_MASK if name.startswith(DECODER) else MASK
    if mask not in spans or not isinstance(value, Tensor) or value.dim() < 2:
        return value
    start, end, length = spans[mask]
    if value.shape[1] != length:
        return value
    by_position = value.dim() == 2 and not value.is_floating_point()
    if not (by_position or name == mask or any(word in name for word in BY_POSITION)):
        return value
    return value[:, start:end]


def _entries(example: Batch) -> int:
    return sum(tensor.numel() for tensor in example.tensors)


def _row_form(example: Batch) -> tuple[Any, ...]:
    """Return what rows have in common that can be joined: the shapes of their inputs and targets."""
    target = tuple(example.target.shape) if isinstance(example.target, Tensor) else type(example.target)
    shapes = (
        (name, tuple(value.shape), value.dtype) if isinstance(value, Tensor) else (name, repr(value))
        for name, value in example.kwargs.items()
    )
    return (*shapes, target, example.has_labels)

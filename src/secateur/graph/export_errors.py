"""Errors of exports: the operator, the line of the model's own code, and advice."""

import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from secateur.errors import TraceError
from secateur.utils.failure_text import failure_text

FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
LAYERS = str(Path(torch.__file__).parent / "nn")


Frames = list[FrameType]


@dataclass(frozen=True)
class Advice:
    """The advice for one kind of failure.

    Args:
        applies: whether a failure is of this kind, from its text and the frames that were running.
        text: the advice; {parts} stands for a part of the model by name.
    """

    applies: Callable[[str, Frames], bool]
    text: str


def _depends_on_values(text: str, _: Frames) -> bool:
    return any(sign in text for sign in ("data-dependent", "DataDependent", "unbacked symbol", ".item()"))


def _packs_sequences(_: str, frames: Frames) -> bool:
    return any(
        frame.f_code.co_name in ("pack_padded_sequence", "pad_packed_sequence", "pack_sequence")
        or any(isinstance(value, PackedSequence) for value in frame.f_locals.values())
        for frame in frames
    )


ADVICE = (
    Advice(
        _packs_sequences,
        "A packed sequence has as many rows as the lengths' values say, which an export can't follow: run the "
        "recurrent layer on the padded batch, and leave the padding out with a mask afterwards",
    ),
    Advice(
        lambda text, _: ".numpy()" in text,
        "numpy computes outside of torch: use the torch function of the same name at that line",
    ),
    Advice(
        _depends_on_values,
        "Rewrite that line so that it does not depend on the values in tensors (torch.where or torch.cond in place of "
        "if, no .item()), or give the part that can be exported{parts}",
    ),
)


def export_error(model: nn.Module, failure: BaseException) -> TraceError:
    """Build the error for a model that torch can't export."""
    frames = [frame for frame, _ in traceback.walk_tb(failure.__traceback__)]
    text = failure_text(failure)
    advice = [entry.text.replace("{parts}", _parts_text(model)) for entry in ADVICE if entry.applies(text, frames)][:1]
    cause = f"torch.export could not export {type(model).__name__}: {_first_line(text)}"
    return TraceError("\n".join([cause, *_place(model, failure), *advice]))


def _parts_text(model: nn.Module) -> str:
    """Name the largest of a model's parts, and how it is put back; nothing where there is one part alone."""
    sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    names = [name for name, size in sizes.items() if size and not name.isdigit()]
    if len(names) < 2:
        return ""
    name = max(names, key=sizes.__getitem__)
    return f", such as model.{name}, with examples of its own inputs, and put it back: model.{name} = result.model"


def _first_line(text: str) -> str:
    """Return the message without torch's hints about its own settings."""
    return next(line.strip() for line in text.splitlines() if line.strip()).split(".  (Size-like symbols")[0]


def _place(model: nn.Module, failure: BaseException) -> list[str]:
    """Return the innermost line of the model's own code, its module, and the torch.nn module that it called."""
    steps = list(traceback.walk_tb(failure.__traceback__))
    paths = {id(module): path for path, module in model.named_modules()}
    calls = [index for index, (frame, _) in enumerate(steps) if id(frame.f_locals.get("self")) in paths]
    if not calls:
        return []
    innermost = steps[calls[-1]][0].f_locals["self"]
    location = f"  in {paths[id(innermost)] or 'forward'} ({type(innermost).__name__})"
    code = [(i, f, line) for i, (f, line) in enumerate(steps) if i >= calls[0] and not _is_foreign(f)]
    if not code:
        return [location]
    index, frame, line = code[-1]
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    inner = [f.f_code.co_name for f, _ in steps[index + 1 :] if f.f_code.co_filename.startswith(LAYERS)]
    source = linecache.getline(file, line).strip()
    operator = [name for name in inner if not name.startswith("_") and name not in ("forward", *source.split("."))][:1]
    call_text = f", calling {operator[0]}" if operator else ""
    return [f'{location}{call_text}: File "{file}", line {line}, in {function}: {source}']


def _is_foreign(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(FOREIGN)

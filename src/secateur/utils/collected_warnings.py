"""Warnings of a run: collected while it runs, and shown at its end, one line for those that are alike.

A filter that turns warnings into errors still does so where they arise. Warnings about plans on trial are dropped.
"""

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import torch

from secateur.errors import SecateurWarning
from secateur.utils.progress import debug_details

PACKAGE, TORCH = (str(Path(file).parent) for file in (__file__, str(torch.__file__)))
PACKAGE = str(Path(PACKAGE).parent)
NUMBER = re.compile(r"\d[\d,.]*")
MOST_SUBJECTS = 20

_collected: ContextVar[list[SecateurWarning] | None] = ContextVar("collected", default=None)
_are_dropped: ContextVar[bool] = ContextVar("are_dropped", default=False)


def warn(message: str, subject: str = "", kind: str = "") -> None:
    """Warn the caller of the public function that is running.

    Args:
        message: the message.
        subject: what it is about, such as a layer; warnings of one kind about several subjects are shown in one line.
        kind: the kind of warning; by default the message without its numbers and its subject.
    """
    if _are_dropped.get():
        return
    warning = SecateurWarning(message, subject, kind or NUMBER.sub("#", message.replace(subject or "\0", "")))
    collected_warnings = _collected.get()
    if collected_warnings is not None:
        collected_warnings.append(warning)
    debug_details(f"warning: {message}")
    frame = _caller_frame()
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    module = frame.f_globals.get("__name__")
    warnings.warn_explicit(warning, None, frame.f_code.co_filename, frame.f_lineno, module, registry)


@contextmanager
def own_warnings_dropped() -> Iterator[None]:
    """Drop Secateur's own warnings within: those about plans that are only tried."""
    token = _are_dropped.set(True)
    try:
        yield
    finally:
        _are_dropped.reset(token)


@contextmanager
def warnings_collected() -> Iterator[None]:
    """Show all warnings that arise within at the end, those that are alike in one line."""
    if _collected.get() is not None:
        yield
        return
    token = _collected.set([])
    new_warnings: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as recorded_warnings:
            try:
                yield
            finally:
                new_warnings = list(recorded_warnings)
    finally:
        _collected.reset(token)
        _show(new_warnings)


def _show(recorded_warnings: Sequence[warnings.WarningMessage]) -> None:
    """Show recorded warnings, one line for each kind, at the place of the first of the kind."""
    messages = [(record, _as_warning(record)) for record in recorded_warnings]
    first_records = {_kind_of(message): record for record, message in reversed(messages)}
    for kind, alike in _by_kind(message for _, message in messages).items():
        record = first_records[kind]
        text = merged_text(alike, MOST_SUBJECTS)
        message = SecateurWarning(text) if isinstance(alike[0], SecateurWarning) else Warning(text)
        warnings.showwarning(alike[0] if len(alike) == 1 else message, record.category, record.filename, record.lineno)


@contextmanager
def warnings_apart() -> Iterator[None]:
    """Give one of several results a list of warnings of its own, after those that all results share."""
    token = _collected.set(list(_collected.get() or []))
    try:
        yield
    finally:
        _collected.reset(token)


def own_warnings() -> tuple[SecateurWarning, ...]:
    """Return the warnings of Secateur in the present run, in order."""
    return tuple(_collected.get() or ())


def warning_lines() -> tuple[str, ...]:
    """Return the warnings of Secateur in the present run, one line for those that are alike."""
    return tuple(merged_text(alike) for alike in _by_kind(_collected.get() or []).values())


def merged_text(alike: Sequence[Warning], most: int | None = None) -> str:
    """Return one line for warnings that are alike.

    Args:
        alike: the warnings.
        most: the number of subjects to name; by default all.
    """
    subjects = list(
        dict.fromkeys(warning.subject for warning in alike if isinstance(warning, SecateurWarning) and warning.subject)
    )
    texts = list(dict.fromkeys(str(warning) for warning in alike))
    if len(subjects) > 1:
        other_subjects = subjects[1:] if most is None else subjects[1 : most + 1]
        further = (
            f" and {len(subjects) - 1 - len(other_subjects)} more" if len(subjects) - 1 > len(other_subjects) else ""
        )
        return f"{texts[0]}; the same holds for {', '.join(other_subjects)}{further}"
    return texts[0] if len(texts) == 1 else f"{texts[0]} ({len(texts) - 1} more differ from this only in numbers)"


def _by_kind(messages: Iterable[Warning]) -> dict[tuple[type, str], list[Warning]]:
    by_kind: dict[tuple[type, str], list[Warning]] = {}
    for message in messages:
        by_kind.setdefault(_kind_of(message), []).append(message)
    return by_kind


def _as_warning(record: warnings.WarningMessage) -> Warning:
    return record.message if isinstance(record.message, Warning) else record.category(record.message)


def _kind_of(message: Warning) -> tuple[type, str]:
    return type(message), message.kind if isinstance(message, SecateurWarning) else NUMBER.sub("#", str(message))


def _caller_frame() -> FrameType:
    """Return the frame that called the outermost function of Secateur, beyond those of torch."""
    frame: FrameType | None = sys._getframe(1)
    caller = outermost = frame
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            outermost = frame
        frame = frame.f_back
    caller = outermost.f_back if outermost is not None else None
    while caller is not None and caller.f_code.co_filename.startswith(TORCH):
        caller = caller.f_back
    assert outermost is not None
    return caller or outermost

"""JSON records: decoded by msgspec into typed structures, with a digest of the preceding content."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar, overload

import msgspec

from secateur.errors import StorageError
from secateur.files.regular import read_bytes
from secateur.files.staging import Writer, bytes_writer
from secateur.options import kind_text

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
TAIL = re.compile(rb',\s*"checksum":\s*"([0-9a-f]{64})"\s*\}\s*\Z')
TAIL_LENGTH = 128


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record or a nested record, with exactly these fields of exactly these types.

    What is a file by itself has the fields `format`, which is `FORMAT`, and `checksum`.
    """

    FORMAT: ClassVar[str] = ""

    def is_whole(self, content: bytes) -> bool:
        """Return whether the content matches the digest at its end."""
        tail = TAIL.search(content, max(len(content) - TAIL_LENGTH, 0))
        return tail is not None and tail[1].decode() == hashlib.sha256(content[: tail.start()]).hexdigest()


class CanonicalRecord(Record, frozen=True):
    """A file of version 0.7, whose digest is that of its fields in sorted order."""

    def is_whole(self, content: bytes) -> bool:
        """Return whether the fields have the digest at the end."""
        fields = msgspec.to_builtins(self)
        digest = fields.pop("checksum", None)
        return bool(digest == hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest())


NewRecord = TypeVar("NewRecord", bound=Record)
OldRecord = TypeVar("OldRecord", bound=Record)


class _Header(msgspec.Struct):
    format: str


def check_stored(holds: bool, reason: str) -> None:
    """Check a condition on what a file states.

    Raises:
        StorageError: the condition does not hold.
    """
    if not holds:
        raise StorageError(reason)


def encode_record(record: Record) -> bytes:
    """Encode a record: its format first, its digest last.

    Raises:
        StorageError: it holds what could not be read again.
    """
    fields = msgspec.to_builtins(record)
    try:
        msgspec.convert(fields, type(record))
    except msgspec.ValidationError as failure:
        raise StorageError(f"{kind_text(record)} can't be written: {failure}") from failure
    first_fields = ("format", "secateur", "torch", "model")
    names = [*(name for name in first_fields if name in fields), *(name for name in fields if name not in first_fields)]
    fields = {name: fields[name] for name in names if name != "checksum"}
    return with_digest(msgspec.json.format(msgspec.json.encode(fields), indent=1))


def with_digest(text: bytes) -> bytes:
    """Append to a JSON object a field with the digest of its preceding content."""
    body = text.rstrip().removesuffix(b"}").rstrip()
    return body + f',\n "checksum": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def record_writer(record: Record) -> Writer:
    """Return a writer of a record as JSON."""
    return bytes_writer(encode_record(record))


@overload
def read_record(path: Path, kinds: tuple[type[NewRecord]]) -> NewRecord: ...
@overload
def read_record(path: Path, kinds: tuple[type[NewRecord], *tuple[type[OldRecord], ...]]) -> NewRecord | OldRecord: ...
def read_record(path: Path, kinds: tuple[type[Record], ...]) -> Record:
    """Read a record of one of these kinds.

    Raises:
        StorageError: the file is missing, cut off, altered, of another format, or has not exactly the fields and types
            of its kind.
    """
    content = read_bytes(path)
    try:
        written = msgspec.json.decode(content, type=_Header).format
        by_format = {kind.FORMAT: kind for kind in kinds}
        if written not in by_format:
            raise StorageError(
                f"{path} is not of this version: it holds {written!r} where {kinds[0].FORMAT!r} was expected"
            )
        record = msgspec.json.decode(content, type=by_format[written])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as failure:
        raise StorageError(f"{path} can't be read: {failure}; it is missing, cut off or damaged") from failure
    if not record.is_whole(content):
        raise StorageError(f"{path} was altered or damaged: its checksum does not match")
    return record

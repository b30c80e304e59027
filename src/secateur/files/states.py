"""Nested states, such as an optimizer's, in one file of tensors, without pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from secateur.errors import StorageError
from secateur.files.records import Record
from secateur.files.staging import Writer
from secateur.files.tensors import About, read_tensors, tensors_writer
from secateur.options import kind_text


class TensorNode(Record, frozen=True, tag="tensor"):
    """A tensor, by its name in the file."""

    name: str


class PlainValue(Record, frozen=True, tag="value"):
    """A plain value."""

    value: bool | int | float | str | None


class SequenceNode(Record, frozen=True, tag="sequence"):
    """A list or a tuple."""

    items: list["Node"]
    is_tuple: bool


class MappingNode(Record, frozen=True, tag="mapping"):
    """A dict with strings or integers as keys."""

    items: list[tuple[str | int, "Node"]]


Node = TensorNode | PlainValue | SequenceNode | MappingNode


class SavedState(About, frozen=True):
    """A state with the fingerprint of what it depends on.

    Args:
        of: a fingerprint of all that the state depends on.
        state: the tree of the tensors.
    """

    FORMAT: ClassVar[str] = "secateur training/2"

    of: str
    state: Node


def state_writer(state: Mapping[str, Any], of: str) -> Writer:
    """Return a writer of a nested state of dicts, lists, tuples, tensors and plain values.

    Args:
        state: the state.
        of: a fingerprint of all that the state depends on, which `read_state` returns.
    """
    tensors: dict[str, Tensor] = {}
    root = _node(state, tensors)
    return tensors_writer(tensors, SavedState(of, root))


def read_state(path: Path) -> tuple[dict[str, Any], str]:
    """Read a state that `state_writer` wrote, and the fingerprint of what it depends on.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another format.
    """
    tensors, about, _ = read_tensors(path, (SavedState,))
    try:
        state = _value_of_node(about.state, tensors)
    except KeyError as failure:
        raise StorageError(f"{path} is damaged: it holds no tensor {failure}") from failure
    if not isinstance(state, dict) or tensors:
        raise StorageError(f"{path} is damaged: its tensors and their tree do not belong together")
    return state, about.of


def check_alike(state: Any, template: Any, location: str) -> None:
    """Check that a state has the structure of a template.

    Args:
        state: the state that was read.
        template: a state of the same kind.
        location: the path within the whole state, for the message.

    Raises:
        StorageError: the two differ in their keys, lengths or types, or in the shapes of their tensors.
    """
    if type(state) is not type(template) and not (isinstance(state, Mapping) and isinstance(template, Mapping)):
        raise StorageError(f"{location} is {kind_text(state)}, where {kind_text(template)} is expected")
    if isinstance(template, Mapping):
        if state.keys() != template.keys():
            other_keys = sorted(map(str, state.keys() ^ template.keys()))
            raise StorageError(f"{location} has other entries: {', '.join(other_keys[:3])}")
        for key, value in template.items():
            check_alike(state[key], value, f"{location}.{key}")
    elif isinstance(template, list | tuple):
        if len(state) != len(template):
            raise StorageError(f"{location} has {len(state)} entries, where {len(template)} are expected")
        for number, (value, like) in enumerate(zip(state, template, strict=True)):
            check_alike(value, like, f"{location}.{number}")
    elif isinstance(template, Tensor) and (state.shape != template.shape or state.dtype != template.dtype):
        raise StorageError(
            f"{location} is {tuple(state.shape)} of {state.dtype}, where {tuple(template.shape)} of {template.dtype} "
            "is expected"
        )


def _node(value: Any, tensors: dict[str, Tensor]) -> Node:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return TensorNode(name)
    if isinstance(value, Mapping):
        return MappingNode([(key, _node(item, tensors)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return SequenceNode([_node(item, tensors) for item in value], isinstance(value, tuple))
    if value is None or type(value) in (bool, int, float, str):
        return PlainValue(value)
    raise StorageError(f"a state holds {kind_text(value)}, which can't be written without pickle")


def _value_of_node(node: Node, tensors: dict[str, Tensor]) -> Any:
    """Return the value of a node; remove its tensors from `tensors`."""
    if isinstance(node, TensorNode):
        return tensors.pop(node.name)
    if isinstance(node, MappingNode):
        return {key: _value_of_node(item, tensors) for key, item in node.items}
    if isinstance(node, SequenceNode):
        items = [_value_of_node(item, tensors) for item in node.items]
        return tuple(items) if node.is_tuple else items
    return node.value

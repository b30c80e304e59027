"""Errors of lost processes hold no process group, whose threads would be alive when the interpreter ends."""

import weakref
from typing import Any

import pytest
from torch import distributed

from secateur.errors import ProcessError
from secateur.utils import distributed as exchanges


class Group:
    """A stand-in for a process group."""


def test_the_error_of_a_lost_process_holds_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[weakref.ref[Group]] = []

    def lose_connection(received: list[Any], message: bytes, group: object) -> None:
        used_group = Group()
        groups.append(weakref.ref(used_group))
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "all_gather_object", lose_connection)
    monkeypatch.setattr(exchanges, "process_count", lambda: 2)
    with pytest.raises(ProcessError, match="another process ended before 'score: begin' was done") as stopped:
        exchanges.exchange("score: begin")
    assert str(stopped.value.__cause__) == "Connection closed by peer"
    assert groups[0]() is None

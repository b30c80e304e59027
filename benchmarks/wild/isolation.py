"""Run one thing in a process of its own: what crashes, hangs or fills the memory does so there."""

import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Row = dict[str, Any]


def run_isolated(examine: Callable[[], Row], limit: int) -> Row:
    """What a function returns, from a copy of this process that has at most `limit` seconds.

    The copy starts with everything that is loaded here, so a row costs no imports. Nothing that it prints is shown.

    Returns:
        The row; "failed", "error" and "outcome" where there is none.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sending, examine))
    process.start()
    sending.close()
    try:
        if not receiving.poll(limit):
            process.kill()
            return {"failed": "time", "error": f"more than {limit} s", "outcome": "hang"}
        row: Row = json.loads(receiving.recv_bytes())
        return row
    except EOFError:
        process.join()
        return {"failed": "process", "error": f"ended with code {process.exitcode}", "outcome": "crash"}
    finally:
        process.join()


def _send(sending: Connection, examine: Callable[[], Row]) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sending.send_bytes(json.dumps(examine()).encode())

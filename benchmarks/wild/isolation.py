"""Run a function in a process of its own, which may crash, hang or fill the memory."""

import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Row = dict[str, Any]


def run_isolated(examine: Callable[[], Row], limit: int) -> Row:
    """Run a function in a copy of this process.

    The copy has all modules that are loaded here, so a row costs no imports. Its output is not shown.

    Args:
        examine: returns a row.
        limit: seconds after which the process is killed.

    Returns:
        The row, or a row of "failed", "error" and "outcome" where the process returns none.
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

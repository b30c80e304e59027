"""The application that commands are registered with, and the handling of errors and signals."""

import functools
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from secateur.cli.common_options import Command, exit_with, with_common_options
from secateur.cli.foreign_flags import CommandWithAdvice
from secateur.errors import SecateurError
from secateur.version import __version__

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def print_version(requested: bool) -> None:
    """Print the version and exit, if it was requested."""
    if requested:
        print(f"secateur {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Prune units of a trained neural network and repair it in closed form."""


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that the same files are saved and cleaned up as on Ctrl-C."""


@contextmanager
def terminated_cleanly() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM within, in the main thread."""

    def stop(*_: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old_handler = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old_handler)


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Print warnings within as messages of the command, without the lines of code that they come from."""

    def show(message: Warning | str, *_: Any) -> None:
        print(f"secateur: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def handle_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print errors of Secateur as one message on standard error.

    The exit code is 2 for such errors, 130 for Ctrl-C and 143 for SIGTERM.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with terminated_cleanly(), warnings_as_messages():
                command(*args, **kwargs)
        except SecateurError as error:
            raise exit_with(error) from error
        except KeyboardInterrupt as stop:
            print(f"secateur: stopped; {_how_to_go_on(stop)}", file=sys.stderr)
            raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from stop

    return run


def _how_to_go_on(stop: KeyboardInterrupt) -> str:
    """Return what a stopped command leaves behind, and the command that goes on from it."""
    notes = getattr(stop, "__notes__", ())
    if not notes:
        return "no file was written except the checkpoint, if there is one"
    command = shlex.join(["secateur", *sys.argv[1:]])
    return f"{notes[0].partition(';')[0]}; the same command goes on from it:\n{command}"


def register_command(name: str) -> Callable[[Command], Command]:
    """Register the decorated function as a command, with the common options, and errors handled by `handle_errors`."""

    def register(command: Command) -> Command:
        app.command(name, cls=CommandWithAdvice)(handle_errors(with_common_options(command)))
        return command

    return register

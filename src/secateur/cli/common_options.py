"""The options that every command has: `--config`, `--quiet` and `--json`."""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli.config_file import options_from
from secateur.cli.finished_work import print_output
from secateur.cli.output import CommandOutput
from secateur.errors import SecateurError

Command = Callable[..., CommandOutput]


def exit_with(error: SecateurError) -> typer.Exit:
    """Print an error of Secateur as one message on standard error, and return the exit with code 2."""
    print(f"secateur: {error}", file=sys.stderr)
    return typer.Exit(2)


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options of a file the defaults of a command."""
    if path is not None:
        try:
            options = options_from(path, context.command.params, str(context.info_name))
        except SecateurError as error:
            raise exit_with(error) from error
        context.default_map = {**(context.default_map or {}), **options}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file of options: keep = {macs = 0.5}. Options on the command line take precedence.",
        show_default=False,
        is_eager=True,
        callback=read_config,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
COMMON = {"config": (Config, None), "quiet": (Quiet, False), "json": (Json, False)}


def with_common_options(command: Command) -> Callable[..., None]:
    """Return a command with the common options, which prints its output as they say.

    An argument `progress` of the command is no option: it is False with `--quiet`. With `--json`, what the user's own
    code prints goes to standard error.
    """
    signature = inspect.signature(command)
    parameters = [entry for entry in signature.parameters.values() if entry.name != "progress"]

    @functools.wraps(command)
    def run(*, config: Path | None, quiet: bool, json: bool, **options: Any) -> None:
        settings = {"progress": not quiet} if "progress" in signature.parameters else {}
        with warnings.catch_warnings(), redirect_stdout(sys.stderr) if json else nullcontext():
            if quiet:
                warnings.simplefilter("ignore")
            output = command(**options, **settings)
        if json:
            print_output(output.to_json())
        elif not quiet:
            print_output(output.text)

    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in COMMON.items()
    ]
    keyword_only = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in parameters]
    run.__signature__ = inspect.Signature([*keyword_only, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {entry.name: entry.annotation for entry in (*keyword_only, *common)}
    del run.__wrapped__  # typer would read its signature
    return run

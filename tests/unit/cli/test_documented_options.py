"""The page on the command line has every command, every option, and its default."""

import re
from pathlib import Path

import pytest
import typer
from click import Command, Option

from repository import ROOT
from secateur.cli.main import app

PAGE = (ROOT / "docs" / "how-to" / "command-line.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `--")]
COMMANDS: dict[str, Command] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def texts_of(default: object) -> list[str]:
    """Return the texts of a default; none for switches, and for options without a default."""
    values = default if isinstance(default, list | tuple) else [default]
    texts = [value.as_posix() if isinstance(value, Path) else str(value) for value in values]
    return [
        text for text, value in zip(texts, values, strict=True) if value is not None and not isinstance(value, bool)
    ]


def row_of(flag: str) -> str:
    """Return the row of the tables of options whose first cell names a flag."""
    rows = [row for row in ROWS if f"`{flag}`" in row.split("|")[1] and row.count("|") == 5]
    assert len(rows) == 1, (flag, rows)
    return rows[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_a_row_with_its_default(name: str) -> None:
    assert f"`{name}`" in PAGE
    for option in COMMANDS[name].params:
        if not isinstance(option, Option):
            continue
        for flag in (*option.opts, *option.secondary_opts):
            default = row_of(flag).split("|")[4]
            missing = [text for text in texts_of(option.default) if f"`{text}`" not in default]
            assert not missing, (flag, missing, default)


def test_no_row_names_an_option_that_is_gone() -> None:
    flags = {flag for row in ROWS for flag in re.findall(r"`(--[\w-]+)`", row.split("|")[1])}
    known = {
        flag
        for command in COMMANDS.values()
        for option in command.params
        for flag in (*option.opts, *getattr(option, "secondary_opts", []))
    }
    assert not flags - known - {"--program model.pt2"}

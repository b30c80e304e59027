"""The sections of docs/shapley.md that are written from rows of results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provenance import results_folder

from shapley import estimator_table, page_texts, refit_table

RESULTS = results_folder("shapley")
NEW_LINE = "\n"


def published() -> str:
    """Return the section on published estimators and cheap scores."""
    return f"{page_texts.PUBLISHED_TEXT.strip(NEW_LINE)}\n\n{estimator_table.table(_rows(RESULTS / 'published.jsonl'))}"


def refit_game() -> str:
    """Return the section on the game after a refit."""
    tables = refit_table.table(_rows(RESULTS / "refit_game.jsonl"))
    return f"{page_texts.REFIT_TEXT.strip(NEW_LINE)}\n\n{tables}"


SECTIONS = {page_texts.PUBLISHED: published, page_texts.REFIT: refit_game}


def sections() -> dict[str, str]:
    """Return the text of each section by its title."""
    return {title: write() for title, write in SECTIONS.items()}


def rewrite(page: Path, title: str, text: str) -> None:
    """Replace the text of one section of a page."""
    before, _, rest = page.read_text().partition(f"## {title}\n")
    _, _, after = rest.partition("\n## ")
    page.write_text(f"{before}## {title}\n\n{text}\n\n## {after}")


def _rows(path: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Write the sections to the page."""
    page = Path(__file__).parents[2] / "docs" / "shapley.md"
    for title, text in sections().items():
        rewrite(page, title, text)


if __name__ == "__main__":
    main()

"""The sections of docs/shapley.md that are written from rows of results."""

from pathlib import Path

from provenance import results_folder
from rows import read_rows

from shapley import estimator_table, page_texts, refit_table

RESULTS = results_folder("shapley")
NEW_LINE = "\n"


def published_section() -> str:
    """Return the section on published estimators and cheap scores."""
    table = estimator_table.error_table(read_rows(RESULTS / "published.jsonl"))
    return f"{page_texts.PUBLISHED_TEXT.strip(NEW_LINE)}\n\n{table}"


def refit_section() -> str:
    """Return the section on the game after a refit."""
    tables = refit_table.refit_tables(read_rows(RESULTS / "refit_game.jsonl"))
    return f"{page_texts.REFIT_TEXT.strip(NEW_LINE)}\n\n{tables}"


SECTIONS = {page_texts.PUBLISHED: published_section, page_texts.REFIT: refit_section}


def sections() -> dict[str, str]:
    """Return the text of each section by its title."""
    return {title: write() for title, write in SECTIONS.items()}


def rewrite_section(page: Path, title: str, text: str) -> None:
    """Replace the text of one section of a page."""
    before, _, rest = page.read_text().partition(f"## {title}\n")
    _, _, after = rest.partition("\n## ")
    page.write_text(f"{before}## {title}\n\n{text}\n\n## {after}")


def main() -> None:
    """Write the sections to the page."""
    page = Path(__file__).parents[2] / "docs" / "shapley.md"
    for title, text in sections().items():
        rewrite_section(page, title, text)


if __name__ == "__main__":
    main()

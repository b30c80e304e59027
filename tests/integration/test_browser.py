"""The pages in a real Chromium: they fit, load nothing, can be read in both schemes, and are used by the keyboard."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.report.network_page import network_page
from secateur.sparsity import pivot
from secateur.stopping import Coalitions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    untrained_networks,
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # the pages are written once
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

PAGES = ("report", "in-sample", "sparse", "network", "comparison", "tradeoff")
LONG_NAME = "model.layers.10.self_attention.query_key_value_projection"
LEAST_CONTRAST = 4.5
"""Of text, for level AA of the Web Content Accessibility Guidelines 2.2."""

CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, channel) => sum + c * [0.2126, 0.7152, 0.0722][channel], 0);
  const painted = (colors) => {
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return luminance(canvas.getImageData(0, 0, 1, 1).data);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  let count = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!texts.currentNode.data.trim() || !element.getClientRects().length || style.visibility === "hidden") continue;
    const behind = [];
    for (let node = element; node; node = node.parentElement) behind.unshift(getComputedStyle(node).backgroundColor);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [dark, light] = [painted(behind), painted([...behind, color])].sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    count += 1;
    if (contrast < LEAST) low.push([texts.currentNode.data.trim(), color, contrast]);
  }
  return [count, low];
}""".replace("LEAST", str(LEAST_CONTRAST))

UNNAMED = """() => {
  const named = (element) => element.getAttribute("aria-label")
    || element.getAttribute("aria-labelledby")?.split(" ").every((id) => document.getElementById(id)?.textContent);
  const roles = '[role="img"], [role="region"], [role="group"], [role="note"]';
  const drawings = [...document.querySelectorAll("svg")].filter((svg) => !svg.closest('[aria-hidden="true"]'));
  return [...document.querySelectorAll(roles), ...drawings].filter((element) => !named(element))
    .map((element) => element.outerHTML.slice(0, 120));
}"""


class Residual(nn.Module):
    """A network with several kinds of units, and a layer that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.wide, self.back = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(torch.relu(x + self.back(torch.relu(self.wide(x)))))


def written_pages() -> dict[str, str]:
    """Return a page of each kind, with names and numbers that are long."""
    torch.manual_seed(0)
    model = Residual().eval()
    inputs = torch.randn(96, 6)
    with torch.no_grad():
        data = [(inputs, model(inputs).argmax(1))]
    result = sc.prune(model, data, {"macs": 0.5}, "shapley", stop=Coalitions(64), progress=False)
    report = result.report
    warned = replace(
        report,
        groups={**report.groups, LONG_NAME: (123_456, 65_432)},
        kinds={**report.kinds, LONG_NAME: "heads"},
        settings={**report.settings, "warnings": ["refit was left out: it did not help on examples held out"]},
    )
    in_sample = replace(report, held_out=False, scores=None)
    curve = sc.tradeoff(model, data, {"macs": (0.75, 0.5)}, "l1", repair="refit", progress=False)
    comparison = sc.compare(model, data, ("l1", "random"), {"macs": (0.75, 0.5)}, progress=False)
    network = replace(sc.trace(model, inputs), title="AClassWithAVeryLongNameForSequenceClassification")
    sparse = pivot(model, data, 0.5, shape=(4, 4), tuning_steps=2, progress=False)
    pages = [warned, in_sample, sparse.report, comparison, curve]
    report_page, in_sample_page, sparse_page, comparison_page, curve_page = (page.to_html() for page in pages)
    texts = (report_page, in_sample_page, sparse_page, network_page(network), comparison_page, curve_page)
    return dict(zip(PAGES, texts, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, text in written_pages().items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


Opened = Callable[..., tuple[Any, list[str]]]


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Opened]:
    """Opens a page at a width and in a scheme; returns it and the list of its messages, errors and requests."""
    contexts = []

    def open_page(name: str, width: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page, events = contexts[-1].new_page(), []
        page.on("console", lambda message: events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("request", lambda request: events.append(request.url))
        page.goto((folder / f"{name}.html").as_uri())
        return page, events

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_the_width_and_loads_nothing(opened: Opened, folder: Path, name: str, width: int) -> None:
    page, events = opened(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert [event for event in events if not event.startswith("data:")] == [(folder / f"{name}.html").as_uri()]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(opened: Opened, name: str, scheme: str) -> None:
    page, _ = opened(name, scheme=scheme)
    count, low = page.evaluate(CONTRASTS)
    assert count > 50 and not low
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(brightness) < 128) == (scheme == "dark")


@pytest.mark.parametrize("name", PAGES)
def test_what_is_drawn_has_a_name_and_headings_stand_in_order(opened: Opened, name: str) -> None:
    page, _ = opened(name)
    assert page.evaluate(UNNAMED) == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((heading) => +heading.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(next_level <= level + 1 for level, next_level in itertools.pairwise(levels))
    assert page.locator("main").count() == page.locator("header").count() == page.locator("footer").count() == 1
    for table in page.locator("table").all():
        assert table.locator("thead th").count() > 0 and table.locator("tbody th[scope=row]").count() > 0


def test_pages_say_what_their_words_mean_and_what_to_do_next(opened: Opened) -> None:
    page, _ = opened("report")
    text = page.inner_text("main")
    assert "Kullback-Leibler" in text and "same top class" in text and "What to do next" in text
    assert "Each unit's fair share in the network's performance" in page.inner_text("header")
    assert "in-sample" in opened("in-sample")[0].inner_text("main")


def test_tables_are_sorted_by_the_keyboard(opened: Opened) -> None:
    page, _ = opened("network")
    table = page.locator("#groups")
    params = table.locator("thead th").nth(3)

    def column() -> list[int]:
        return [int(cell.replace(",", "")) for cell in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]

    assert params.get_attribute("aria-sort") == "none" and len(column()) > 1
    for _ in range(50):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "parameters":
            break
    page.keyboard.press("Enter")
    assert params.get_attribute("aria-sort") == "ascending" and column() == sorted(column())
    page.keyboard.press("Space")
    assert params.get_attribute("aria-sort") == "descending" and column() == sorted(column(), reverse=True)
    kind = table.locator("thead th").nth(1)
    kind.locator("button").click()
    assert (params.get_attribute("aria-sort"), kind.get_attribute("aria-sort")) == ("none", "ascending")
    kinds = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert kinds == sorted(kinds)


def test_a_table_that_is_too_wide_scrolls_by_the_keyboard(opened: Opened) -> None:
    narrow, wide = opened("tradeoff", 390)[0], opened("tradeoff", 1280)[0]
    assert narrow.locator(".scroll").last.get_attribute("tabindex") == "0"
    assert wide.locator(".scroll").last.get_attribute("tabindex") is None


def test_points_of_a_chart_show_their_values_on_focus_and_on_hover(opened: Opened) -> None:
    page, _ = opened("tradeoff")
    point = page.locator(".point").first
    value = point.locator(".value")
    assert not value.is_visible()
    point.focus()
    assert value.is_visible() and value.text_content() == point.get_attribute("aria-label")
    page.evaluate("document.activeElement.blur()")
    assert not value.is_visible()
    point.locator(".mark").hover()
    assert value.is_visible() and "macs 0.5: " in value.text_content()


def test_kept_and_removed_units_differ_by_more_than_colour(opened: Opened) -> None:
    page, _ = opened("report")
    fills = page.evaluate(
        "['kept', 'cut'].map((name) => getComputedStyle(document.querySelector(`td.bar .${name}`)).fill)"
    )
    assert fills[0].startswith("rgb") and fills[1].startswith("url")


BROKEN_WORDS = """() => [...document.querySelectorAll("#comparison tbody th")].flatMap((cell) => {
  const text = cell.firstChild;
  return [...text.data.matchAll(/\\S+/g)].filter((word) => {
    const range = document.createRange();
    range.setStart(text, word.index);
    range.setEnd(text, word.index + word[0].length);
    return range.getClientRects().length > 1;
  }).map((word) => word[0]);
})"""


def test_names_of_measures_are_broken_between_words_alone(opened: Opened) -> None:
    page, _ = opened("report", 390)
    page.evaluate(
        "document.querySelectorAll('#comparison td').forEach((cell) => cell.textContent = '[15.10,\u00a016.24]')"
    )
    assert page.evaluate("document.querySelectorAll('#comparison tbody th').length") >= 7
    assert page.evaluate(BROKEN_WORDS) == []

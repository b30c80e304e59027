"""Numbers of a budget as people write them: "2M" parameters, "1MB", "300M" MACs, "5ms", "2x", "50%"."""

import re
from collections.abc import Mapping

from secateur.errors import BudgetError
from secateur.options import is_real, short_text

DECIMAL: Mapping[str, float] = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
BYTES: Mapping[str, float] = {
    **DECIMAL, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
SUFFIXES: Mapping[str, Mapping[str, float]] = {
    "params": DECIMAL,
    "macs": DECIMAL,
    "units": DECIMAL,
    "bytes": BYTES,
    "latency": {"": 1},
    "decode_latency": {"": 1},
    "prefill_latency": {"": 1},
    "ms": {"": 1, "ms": 1, "s": 1e3},
    "speedup": {"": 1, "x": 1},
}
EXAMPLES: Mapping[str, str] = {
    "params": "0.5 or '2M'", "macs": "0.5 or '300M'", "bytes": "0.5 or '1MB'", "units": "0.5 or 100",
    "latency": "0.5", "decode_latency": "0.7", "prefill_latency": "0.7", "ms": "5", "speedup": "2",
}  # fmt: skip
NUMBER = re.compile(
    r"\s*(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d[\d_]*\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)\s*", re.IGNORECASE
)
"""A number, with commas between thousands alone: "0,5" is none."""


def parse_quantity(unit: str, value: object) -> float:
    """Parse a number, or a text such as "300M", as a number in the unit of a budget.

    Args:
        unit: of the budget.
        value: what the user gave.

    Raises:
        BudgetError: it is neither, or has a suffix that the unit does not have.

    Examples:
        >>> parse_quantity("macs", "300M"), parse_quantity("bytes", "1MiB"), parse_quantity("params", "50%")
        (300000000.0, 1048576.0, 0.5)
    """
    if is_real(value):
        return float(value)  # type: ignore[arg-type]
    match = NUMBER.fullmatch(value) if isinstance(value, str) else None
    suffixes = SUFFIXES.get(unit, {"": 1})
    percent = {"%": 0.01} if unit in EXAMPLES and unit not in ("ms", "speedup") else {}
    factor = None if match is None else {**suffixes, **percent}.get(match[2].lower())
    if match is None or factor is None:
        known_suffixes = ", ".join(suffix for suffix in (*suffixes, *percent) if suffix)
        advice = f", optionally followed by one of {known_suffixes}" if known_suffixes else ""
        raise BudgetError(
            f"keep={{{unit!r}: {short_text(value)}}} is no number, or out of range; give a number{advice}, such as "
            f"{EXAMPLES.get(unit, '0.5')}"
        )
    return float(match[1].replace("_", "").replace(",", "")) * factor


def quantity_text(unit: str, value: float) -> str:
    """Return the number of a budget in words: a fraction as it is, an absolute number with separators.

    Args:
        unit: of the budget.
        value: the number.

    Examples:
        >>> quantity_text("macs", 0.5), quantity_text("macs", 3e8), quantity_text("ms", 5.0)
        ('macs 0.5', 'macs 300,000,000', 'ms 5')
    """
    return f"{unit} {value:,.0f}" if unit not in ("ms", "speedup") and value > 1 else f"{unit} {value:g}"


def budget_text(keep: Mapping[str, float]) -> str:
    """Return a budget in words; it is empty where only sizes of groups are given.

    Examples:
        >>> budget_text({"macs": 0.5, "params": 2e6})
        'macs 0.5, params 2,000,000'
    """
    return ", ".join(quantity_text(unit, value) for unit, value in keep.items()) or "sizes of groups"

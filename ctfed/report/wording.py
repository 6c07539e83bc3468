"""Numbers as a reader sees them: fixed decimals, units, and a dash for what is not known."""

from __future__ import annotations

from collections.abc import Iterable

MISSING = "–"
MINUS = "\u2212"


def fixed(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` decimals; '0.0000' is never written '-0.0000'."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def compact(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, for numbers whose size is not known beforehand."""
    if value is None:
        return MISSING
    return f"{value:.{digits}g}".replace("-", MINUS)


def whole(value: int | None) -> str:
    """A count with commas between thousands."""
    return MISSING if value is None else f"{value:,}".replace("-", MINUS)


def counted(value: int | None, singular: str, plural: str | None = None) -> str:
    """A count and its noun: '1 site', '1,200 patients', 'an unknown number of events'."""
    many = plural or f"{singular}s"
    if value is None:
        return f"an unknown number of {many}"
    return f"{whole(value)} {singular if value == 1 else many}"


def p_value(value: float | None) -> str:
    """A p-value with three decimals, or '<0.001'."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def equals_p(value: float | None) -> str:
    """A p-value in a sentence: 'p = 0.012', 'p < 0.001' or 'p not available'."""
    if value is None:
        return "p not available"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def interval(lower: float | None, upper: float | None, digits: int = 3) -> str:
    """'0.551 to 0.702', or a dash when a limit is not known."""
    if lower is None or upper is None:
        return MISSING
    return f"{fixed(lower, digits)} to {fixed(upper, digits)}"


def size(count: float | None) -> str:
    """Bytes in the decimal unit that leaves one to three digits before the point."""
    if count is None:
        return MISSING
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def duration(seconds: float | None) -> str:
    """Seconds as '0.8 s', '42 s', '3 min 5 s' or '2 h 4 min'."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {rest} min"


def average(value: float | None) -> str:
    """A count that may be a mean: '4', '4.6'."""
    return MISSING if value is None else f"{round(value, 1):g}"


def listed(items: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(items)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"

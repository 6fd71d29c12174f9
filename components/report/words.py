"""Numbers, times and names as the page writes them."""

import datetime
import json
import math
import re
from typing import Any

from markupsafe import Markup

from components.report.judgement import Interval
from components.report.judgement import interval as parsed
from components.report.storage import plain

ROUNDING = 1e-12  # what is less differs from 0 by the order of a sum


def measure(value: Any) -> str:
    """A value short enough for a table: integers whole, others to three decimals or four digits."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        if math.isnan(value):
            return "not evaluable"
        if float(value).is_integer() or abs(value) < ROUNDING:
            return f"{round(value):,}"
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"
    return json.dumps(plain(value))


def interval(of: Interval | None) -> str:
    """An interval in words: 0.842 [0.790, 0.891]."""
    if of is None or of.value is None:
        return "not evaluable"
    return f"{of.value:.3f} {ends(of)}".rstrip()


def ends(of: Interval | None) -> str:
    """The ends of an interval, [0.790, 0.891], or nothing."""
    return f"[{of.low:.3f},\u00a0{of.high:.3f}]" if of is not None and of.known else ""


def bound(value: float | None) -> str:
    """What a check holds its value against; the least number above 0 stands for "more than 0"."""
    return "> 0" if value is not None and 0 < value < 1e-12 else measure(value)


def share(value: float) -> str:
    """A share in percent; only none and all of them go without a decimal."""
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def worded(value: Any) -> str:
    """A value or [value, low, high] or list of names, in words."""
    of = parsed(value)
    if of is not None:
        return interval(of)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return measure(value)


def sentence(text: str) -> str:
    """A remark as a sentence: a capital first, a full stop last."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def breakable(name: str) -> Markup:
    """A name that a narrow column may break between its words: Moderate|Demented, brain_|q05."""
    return Markup("<wbr>").join(re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_/-])", name))


def moment(text: str) -> str:
    """An ISO 8601 time as people write it; any other text as it is."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = found.tzname() or ""
    return f"{found.day} {found:%B %Y, %H:%M} {zone}".rstrip()


def size(octets: int) -> str:
    """Bytes in decimal units."""
    if octets < 1_000:
        return f"{octets} B"
    return f"{octets / 1e3:.0f} kB" if octets < 1_000_000 else f"{octets / 1e6:.1f} MB"

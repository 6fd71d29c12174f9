"""Cron expressions of five fields, as crontab(5) has them, checked before a service sees them."""

import re

from pipeline.backends.interface import BackendError

_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
)
_PART = re.compile(r"(?:\*|(?P<low>\d+)(?:-(?P<high>\d+))?)(?:/(?P<step>[1-9]\d*))?")


def checked(expression: str) -> str:
    """The expression with single spaces.

    Raises:
        BackendError: it has other than five fields, or a field is out of its range.
    """
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise BackendError(
            f"A cron expression has five fields (received {len(fields)}: {expression!r}): minute, "
            'hour, day of the month, month, day of the week, in UTC. Nightly at three: "0 3 * * *".'
        )
    for text, (name, least, most) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            match = _PART.fullmatch(part)
            ends = [int(end) for end in match.group("low", "high") if end] if match else []
            outside = any(not least <= end <= most for end in ends)
            if match is None or outside or ends != sorted(ends):
                raise BackendError(
                    f"The {name} of a cron expression is *, a number from {least} to {most}, a "
                    f"range a-b, a list a,b or a step */n (received {text!r} in {expression!r})."
                )
    return " ".join(fields)

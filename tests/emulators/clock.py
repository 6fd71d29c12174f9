"""A clock that a test moves, and cron expressions by it (crontab(5): five fields, UTC)."""

import datetime
from collections.abc import Iterator

MINUTE = datetime.timedelta(minutes=1)
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


class Clock:
    """The time, plus what a test has added to it."""

    def __init__(self):
        self.added = datetime.timedelta()

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.added

    def advance(self, seconds: float) -> None:
        self.added += datetime.timedelta(seconds=seconds)


class Cron:
    """When something is due.

    Raises:
        ValueError: the expression is malformed.
    """

    def __init__(self, expression: str):
        fields = expression.split()
        if len(fields) != len(RANGES):
            raise ValueError(f"{expression!r} has {len(fields)} fields, not {len(RANGES)}")
        self.allowed = [_numbers(f, *r) for f, r in zip(fields, RANGES, strict=True)]
        self.any_day = [field == "*" for field in (fields[2], fields[4])]

    def between(self, after: datetime.datetime, until: datetime.datetime) -> Iterator:
        """Due times later than `after`, up to `until`."""
        moment = after.replace(second=0, microsecond=0) + MINUTE
        while moment <= until:
            if self._matches(moment):
                yield moment
            moment += MINUTE

    def _matches(self, moment: datetime.datetime) -> bool:
        minutes, hours, days, months, weekdays = self.allowed
        if moment.minute not in minutes or moment.hour not in hours or moment.month not in months:
            return False
        day, weekday = moment.day in days, moment.isoweekday() % 7 in weekdays
        return (day and weekday) if any(self.any_day) else (day or weekday)


def _numbers(field: str, least: int, most: int) -> set[int]:
    found = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        first = least if span == "*" else int(low)
        last = most if span == "*" or (step and not high) else int(high or low)
        if not least <= first <= last <= most:
            raise ValueError(f"{field!r} is outside {least} to {most}")
        found |= set(range(first, last + 1, int(step or 1)))
    return found

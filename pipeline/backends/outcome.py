"""How a run ended, from what a service says of it and of its nodes."""

from collections.abc import Sequence

from pipeline.backends.interface import STOPS, RunStatus, Task

# Last lines of a container that say nothing of the reason.
_EMPTY = ("", "Error")


def failure(tasks: Sequence[Task], said: str) -> tuple[RunStatus, str]:
    """Status and reason of a run that the service calls failed.

    A stop node fails for one reason alone, which then is the run's; any other failed node is a
    failure of what runs the pipeline, or a defect. Where both are there, the defect is told: what
    the gates say of a run that broke is not the whole answer.

    Args:
        tasks: the run's nodes.
        said: the service's own words.
    """
    failed = [task for task in tasks if task.state == "failed"]
    if not failed:
        return "failed", said or "the service gives no reason"
    first = next((task for task in failed if task.name not in STOPS), failed[0])
    known = first.error not in _EMPTY
    reason = f"{first.name}: {first.error}" if known else f"{first.name} failed; see its log"
    return STOPS.get(first.name, "failed"), reason


def told_by(line: str) -> str:
    """What a log's last line says of an error, without the exception's class before it."""
    head, colon, rest = line.partition(": ")
    return rest.strip() if colon and "." in head and " " not in head else line.strip()

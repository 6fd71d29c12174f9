"""Names that strangers give: which are taken, and what is said when they name nothing here."""

import re
import secrets

from serving.errors import ServingError

# What a registry calls a model, and a label; longer or stranger ones cannot exist here.
NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
_NAME = re.compile(NAME)
_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,128}")


def request_id(received: bytes | None) -> str:
    """The client's id where it is 1 to 128 printable ASCII characters, else a fresh one."""
    if received is not None and _PRINTABLE.fullmatch(received):
        return received.decode()
    return secrets.token_hex(16)


def valid(name: str) -> bool:
    """Whether a model or a label can have this name."""
    return _NAME.fullmatch(name) is not None


def worded(
    problem: ServingError,
    model: str,
    version: int | None,
    label: str | None,
    *,
    status: bool = False,
) -> ServingError:
    """Puts `not_found` in TF Serving's words and codes; other problems stay as they are.

    The engine's own words, which tell what there is, follow. Only names that a model can have are
    repeated, so no stranger's text is.

    Args:
        problem: as the engine raised it.
        model, version, label: as requested.
        status: the request was for states, which TF Serving words differently.
    """
    if problem.code != "not_found":
        return problem
    shown = model if valid(model) else "?"
    if label is not None:
        shown_label = label if valid(label) else "?"
        return ServingError(
            "invalid_request",
            f"Unrecognized servable version label: {shown_label}. {problem}",
            details=problem.details,
        )
    if status:
        what = "any versions" if version is None else f"version {version}"
        message = f"Could not find {what} of model {shown}"
    else:
        kind = f"Latest({shown})" if version is None else f"Specific({shown}, {version})"
        message = f"Servable not found for request: {kind}"
    return ServingError("not_found", f"{message}. {problem}", details=problem.details)

"""TF Serving's `models.config`: which versions are loaded and which one is labelled live.

The file is the text form of `ModelServerConfig`; the subset that a registry writes is read and
written here without protobuf, whose serving classes would load TensorFlow. The real server takes
the same file with `--model_config_file`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from registry.interface import RegistryError, Traffic

LIVE = "live"
CANARY = "canary"

_SHARE = re.compile(r"traffic-(0|[1-9][0-9]?|100)")
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:[^"\\\n]|\\["\\])*")|(?P<word>[A-Za-z0-9_.+-]+)|(?P<mark>[{}:])"""
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One model's entry.

    Attributes:
        name: name in URLs.
        base_path: absolute folder of the numbered versions.
        versions: loaded versions, ascending.
        labels: label → version.
    """

    name: str
    base_path: str
    versions: tuple[int, ...]
    labels: Mapping[str, int]


def labels(traffic: Traffic) -> dict[str, int]:
    """The labels that say who answers: `live`, `canary`, and the share as `traffic-N`.

    The share is a label on the canary, so that it travels in the same file and through
    HandleReloadConfigRequest; TF Serving takes any label and needs to know nothing of it.
    """
    found = {} if traffic.live is None else {LIVE: traffic.live}
    if traffic.canary is not None:
        found |= {CANARY: traffic.canary, f"traffic-{traffic.percent}": traffic.canary}
    return found


def is_ours(label: str) -> bool:
    """Whether a label is one that `labels` writes; others are people's own and are kept."""
    return label in (LIVE, CANARY) or label.startswith("traffic-")


def traffic(model: ModelConfig) -> Traffic:
    """Who answers requests that name neither a version nor a label, by the model's labels.

    Raises:
        RegistryError: the labels contradict each other: a share without a canary, two shares, a
            share that is no percentage, or a canary beside nothing or beside itself.
    """
    live, canary = model.labels.get(LIVE), model.labels.get(CANARY)
    shares = [label for label in model.labels if label.startswith("traffic-")]
    problem = ""
    if canary is None and shares:
        problem = f"{shares[0]} without a canary"
    elif canary is not None and (live is None or live == canary):
        problem = f"canary {canary} beside live {live}"
    elif len(shares) > 1:
        problem = f"two shares, {' and '.join(sorted(shares))}"
    elif shares and not _SHARE.fullmatch(shares[0]):
        problem = f"{shares[0]}; a share is traffic-0 to traffic-100"
    elif shares and model.labels[shares[0]] != canary:
        problem = f"{shares[0]} on {model.labels[shares[0]]}, which is not the canary {canary}"
    if problem:
        raise RegistryError(
            f"models.config contradicts itself for {model.name}: {problem}. Restore it."
        )
    return Traffic(live, canary, int(shares[0].removeprefix("traffic-")) if shares else 0)


def render(models: Iterable[ModelConfig]) -> str:
    """Writes the file's text: equal models give equal bytes, whatever their order."""
    lines = ["model_config_list {"]
    for model in sorted(models, key=lambda entry: entry.name):
        lines += [
            "  config {",
            f"    name: {_quote(model.name)}",
            f"    base_path: {_quote(model.base_path)}",
            '    model_platform: "tensorflow"',
            "    model_version_policy {",
            "      specific {",
            *(f"        versions: {version}" for version in sorted(model.versions)),
            "      }",
            "    }",
        ]
        for label, version in sorted(model.labels.items()):
            lines += [
                "    version_labels {",
                f"      key: {_quote(label)}",
                f"      value: {version}",
                "    }",
            ]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def parse(text: str) -> tuple[ModelConfig, ...]:
    """Reads what `render` wrote, also after an edit by hand.

    Raises:
        RegistryError: the text is malformed, or holds a field that `render` would lose.
    """
    try:
        message = _message(_tokens(text), closed_by=None)
        _only(message, "model_config_list")
        lists = message.get("model_config_list", [])
        for entry in lists:
            _only(entry, "config")
        return tuple(_model(config) for entry in lists for config in entry.get("config", []))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise RegistryError(
            f"models.config cannot be read: {error}. Restore it, or remove it and promote a "
            "version to write it anew."
        ) from error


def _model(config: Mapping[str, list]) -> ModelConfig:
    _only(config, "name", "base_path", "model_platform", "model_version_policy", "version_labels")
    policies = config.get("model_version_policy", [])
    for policy in policies:
        _only(policy, "specific")
    specific = [entry for policy in policies for entry in policy["specific"]]
    labels = config.get("version_labels", [])
    return ModelConfig(
        name=_text(config["name"][0]),
        base_path=_text(config["base_path"][0]),
        versions=tuple(int(value) for entry in specific for value in entry.get("versions", [])),
        labels={_text(label["key"][0]): int(label["value"][0]) for label in labels},
    )


def _only(message: Mapping[str, Any], *known: str) -> None:
    if unknown := sorted(set(message) - set(known)):
        raise ValueError(f"unknown field(s) {', '.join(unknown)}")


def _tokens(text: str) -> Iterable[str]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unexpected {text[position]!r} at offset {position}")
        if match.lastgroup:
            yield match.group()
        position = match.end()


def _message(tokens: Iterable[str], closed_by: str | None) -> dict[str, list]:
    fields: dict[str, list] = {}
    stream = iter(tokens)
    for name in stream:
        if name == closed_by:
            return fields
        if not name.isidentifier():
            raise ValueError(f"expected a field name, received {name}")
        value: Any = next(stream)
        if value == ":":
            value = next(stream)
        if value == "{":
            value = _message(stream, closed_by="}")
        fields.setdefault(name, []).append(value)
    if closed_by is not None:
        raise ValueError(f"expected {closed_by}, received the end of the file")
    return fields


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(token: str) -> str:
    if not token.startswith('"'):
        raise ValueError(f"expected a quoted string, received {token}")
    return re.sub(r"\\(.)", r"\1", token[1:-1])

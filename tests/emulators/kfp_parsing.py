"""Reads requests by the models of Kubeflow's client library, strictly."""

import datetime
import json
import re

import kfp_server_api as kfp
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

_PLAIN = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}
EQUALS = "EQUALS"
OPERATIONS = kfp.V2beta1PredicateOperation.allowable_values


class ApiError(Exception):
    """An error as the server answers it."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def parsed(body: bytes, kind: str):
    """A request's body as a model.

    Raises:
        ApiError: 400, for a field that the model does not have or a value of another type.
    """
    try:
        return _value(json.loads(body), kind, kind)
    except ValueError as error:
        raise ApiError(400, f"The body is no {kind}: {error}") from None


def predicates(text: str) -> list[dict]:
    """What a filter asks; names must be equal, which is all that is emulated."""
    if not text:
        return []
    known = kfp.V2beta1Filter.openapi_types
    document = json.loads(text)
    if set(document) - set(known):
        raise ApiError(400, f"The filter has unknown fields: {sorted(document)}.")
    found = [_snake(predicate) for predicate in document["predicates"]]
    for predicate in found:
        if set(predicate) - set(kfp.V2beta1Predicate.openapi_types):
            raise ApiError(400, f"The predicate has unknown fields: {sorted(predicate)}.")
        if predicate["operation"] not in (EQUALS, OPERATIONS.index(EQUALS)):
            raise ApiError(400, f"The operation {predicate['operation']} is not emulated.")
    return found


def _snake(document: dict) -> dict:
    """A protobuf message in JSON may write its fields in either way."""
    return {re.sub("([A-Z])", lambda m: f"_{m[1].lower()}", k): v for k, v in document.items()}


def pipeline_spec(document: dict) -> dict:
    """The PipelineSpec in a document, read by its protobuf message as the server does.

    Raises:
        ApiError: 400, for a field that the message does not have, or where there is no pipeline.
    """
    spec = document.get("pipeline_spec", document)
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        platform = document.get("platform_spec", {}) if "pipeline_spec" in document else {}
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise ApiError(400, f"Invalid pipeline spec: {error}") from None
    if not spec.get("pipelineInfo", {}).get("name"):
        raise ApiError(400, "Invalid pipeline spec: the pipeline's name is empty.")
    return spec


def _value(data, kind: str, place: str):
    if data is None:
        return None
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        _check(isinstance(data, list), place, "a list")
        return [_value(entry, match[1], place) for entry in data]
    if match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _check(isinstance(data, dict), place, "an object")
        return {key: _value(entry, match[1], f"{place}.{key}") for key, entry in data.items()}
    if kind in _PLAIN:
        _check(isinstance(data, _PLAIN[kind]), place, kind)
        return datetime.datetime.fromisoformat(data) if kind == "datetime" else data
    return _model(data, getattr(kfp, kind), place)


def _model(data, model: type, place: str):
    if hasattr(model, "allowable_values"):
        _check(data in model.allowable_values, place, f"one of {model.allowable_values}")
        return data
    _check(isinstance(data, dict), place, "an object")
    names = {wire: name for name, wire in model.attribute_map.items()}
    if unknown := sorted(set(data) - set(names)):
        raise ValueError(f"unknown field {unknown[0]!r} in {place}")
    return model(
        **{
            names[wire]: _value(entry, model.openapi_types[names[wire]], f"{place}.{wire}")
            for wire, entry in data.items()
        }
    )


def _check(good: bool, place: str, wanted: str) -> None:
    if not good:
        raise ValueError(f"{place} must be {wanted}")

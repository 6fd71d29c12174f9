"""gRPC: Predict, metadata, states, reload, and TF Serving's codes and words."""

import grpc
import numpy as np
import pytest
from memory_engine import PNG, expected, serving, until

from ingest.records import encode_example
from serving import protos
from serving.config import Limits
from serving.errors import ServingError

IMAGES = [PNG + bytes([index]) * 20 for index in range(3)]
LIMITS = Limits(max_instances=8, max_body_bytes=100_000)


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    root = tmp_path_factory.mktemp("registry")
    for version in ("1", "2", "10", "junk"):
        (root / "severity" / version).mkdir(parents=True)
    with serving(root, limits=LIMITS, rest_port=None) as running:
        running.root = root
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
            running.channel = channel
            yield running


def call(front, method, request, answer=None, service=protos.PREDICTION_SERVICE, **options):
    """The answer, parsed, and the trailing metadata."""
    stub = front.channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=lambda one: one if isinstance(one, bytes) else one.SerializeToString(),
        response_deserializer=answer.FromString if answer else None,
    )
    response, detail = stub.with_call(request, timeout=options.pop("timeout", 20), **options)
    return response, dict(detail.trailing_metadata())


def refused(front, method, request, **options):
    """Status and words of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(front, method, request, **options)
    return caught.value.code().name, caught.value.details()


def request(images=IMAGES, name="images", **spec):
    built = protos.PredictRequest()
    built.model_spec.name = spec.get("model", "severity")
    built.model_spec.signature_name = spec.get("signature", "")
    if "version" in spec:
        built.model_spec.version.value = spec["version"]
    if "label" in spec:
        built.model_spec.version_label = spec["label"]
    tensor = built.inputs[name]
    tensor.dtype = protos.DT_STRING
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    return built


def predict(front, built, **options):
    response, metadata = call(front, "Predict", built, protos.PredictResponse, **options)
    tensor = response.outputs["probabilities"]
    shape = [one.size for one in tensor.tensor_shape.dim]
    return np.array(tensor.float_val, np.float32).reshape(shape), response, metadata


WANTED = np.stack([expected(image) for image in IMAGES])
EXAMPLES = [encode_example({"image": image}) for image in IMAGES]


@pytest.mark.parametrize(
    ("built", "signature"),
    [
        (request(), "predict_images"),
        (request(signature="predict_images"), "predict_images"),
        (request(EXAMPLES, "examples"), "serving_default"),
        (request(EXAMPLES, "examples", signature="serving_default"), "serving_default"),
    ],
)
def test_predict(front, built, signature):
    values, response, _ = predict(front, built)
    np.testing.assert_array_equal(values, WANTED)
    assert response.model_spec.signature_name == signature
    assert response.model_spec.version.value == 1
    assert response.outputs["probabilities"].dtype == protos.DT_FLOAT


@pytest.mark.parametrize(("chosen", "version"), [({"version": 2}, 2), ({"label": "canary"}, 2)])
def test_versions_and_labels(front, chosen, version):
    _, response, metadata = predict(front, request(**chosen))
    assert response.model_spec.version.value == version
    assert metadata["x-model-version"] == str(version)


def test_the_last_string_stands_for_those_left_out(front):
    built = request(IMAGES[:1])
    built.inputs["images"].tensor_shape.dim[0].size = 3
    np.testing.assert_array_equal(predict(front, built)[0], WANTED[[0, 0, 0]])


def test_the_request_id_comes_back_and_so_does_the_purpose(front):
    _, _, metadata = predict(front, request(), metadata=(("x-request-id", "run-7"),))
    assert metadata["x-request-id"] == "run-7"
    assert metadata["x-intended-use"] == "research use only, not for diagnosis"
    fresh = predict(front, request(), metadata=(("x-request-id", "x" * 129),))[2]["x-request-id"]
    assert len(fresh) == 32


def test_output_filter(front):
    built = request()
    built.output_filter.append("probabilities")
    assert set(predict(front, built)[1].outputs) == {"probabilities"}
    built.output_filter[:] = ["nope"]
    status, words = refused(front, "Predict", built)
    assert status == "INVALID_ARGUMENT"
    assert "output tensor alias not found in signature" in words
    built.output_filter[:] = ["probabilities"] * 2
    assert refused(front, "Predict", built)[0] == "INVALID_ARGUMENT"


def changed(edit):
    built = request()
    edit(built)
    return built


def shape(*sizes):
    def edit(built):
        del built.inputs["images"].tensor_shape.dim[:]
        for size in sizes:
            built.inputs["images"].tensor_shape.dim.add(size=size)

    return edit


@pytest.mark.parametrize(
    ("built", "status", "words"),
    [
        (request(model="nope"), "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (request(model="<b>\n"), "NOT_FOUND", "Servable not found for request: Latest(?)"),
        (request(version=9), "NOT_FOUND", "Servable not found for request: Specific(severity, 9)"),
        (request(label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        (request(model=""), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(signature="x"), "INVALID_ARGUMENT", "Serving signature key not found"),
        (request(name="pixels"), "INVALID_ARGUMENT", "Input tensor alias not found in signature"),
        (request([]), "INVALID_ARGUMENT", "no instances"),
        (request([PNG] * 9), "INVALID_ARGUMENT", "the most is 8"),
        (changed(lambda built: built.inputs.clear()), "INVALID_ARGUMENT", "input size does not"),
        (changed(shape()), "INVALID_ARGUMENT", "one axis"),
        (changed(shape(1, 3)), "INVALID_ARGUMENT", "one axis"),
        (changed(shape(2)), "INVALID_ARGUMENT", "3 strings for shape [2]"),
        (changed(shape(-1)), "INVALID_ARGUMENT", "no instances"),
        (changed(shape(2**62)), "INVALID_ARGUMENT", "the most is 8"),
        (
            changed(lambda built: setattr(built.inputs["images"], "dtype", protos.DT_FLOAT)),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be string",
        ),
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "The message is no PredictRequest"),
        (b"", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ],
)
def test_refused_predictions(front, built, status, words):
    got, said = refused(front, "Predict", built)
    assert got == status
    assert words in said


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (ServingError("overloaded", "Full."), "RESOURCE_EXHAUSTED"),
        (ServingError("unavailable", "Loading."), "UNAVAILABLE"),
        (ServingError("out_of_distribution", "Odd."), "FAILED_PRECONDITION"),
        (ServingError("refused_image", "Cut."), "INVALID_ARGUMENT"),
        (ValueError("secret-of-a-defect"), "INTERNAL"),
    ],
)
def test_what_the_engine_raises(front, problem, status):
    front.engine.problem = problem
    try:
        got, words = refused(front, "Predict", request())
    finally:
        front.engine.problem = None
    assert got == status
    assert "secret-of-a-defect" not in words


def test_a_message_over_the_limit(front):
    assert refused(front, "Predict", request([bytes(200_000)]))[0] == "RESOURCE_EXHAUSTED"


def test_messages_together_have_a_limit(front):
    limit = front.server.buffered.limit
    front.server.buffered.limit = 10
    try:
        assert refused(front, "Predict", request())[0] == "RESOURCE_EXHAUSTED"
    finally:
        front.server.buffered.limit = limit
    assert front.server.buffered.size == 0


def test_who_loses_patience_is_not_worked_for(front):
    before = front.engine.cancelled
    front.call(front.engine.gate.clear)
    try:
        assert refused(front, "Predict", request(), timeout=0.3)[0] == "DEADLINE_EXCEEDED"
        until(lambda: front.engine.cancelled == before + 1)
    finally:
        front.call(front.engine.gate.set)


@pytest.mark.parametrize("method", ["Classify", "Regress", "MultiInference"])
def test_what_is_not_offered(front, method):
    assert refused(front, method, b"")[0] == "UNIMPLEMENTED"


def test_metadata(front):
    asked = protos.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "severity"
    response, _ = call(front, "GetModelMetadata", asked, protos.GetModelMetadataResponse)
    assert response.model_spec.version.value == 1
    field = response.metadata["signature_def"]
    definitions = protos.SignatureDefMap.FromString(field.value).signature_def
    assert definitions["serving_default"].inputs["examples"].dtype == protos.DT_STRING
    output = definitions["predict_images"].outputs["probabilities"]
    assert [one.size for one in output.tensor_shape.dim] == [-1, 4]
    asked.model_spec.name = "nope"
    assert refused(front, "GetModelMetadata", asked)[0] == "NOT_FOUND"
    asked.metadata_field[:] = ["other"]
    assert refused(front, "GetModelMetadata", asked)[0] == "INVALID_ARGUMENT"
    asked.metadata_field[:] = []
    assert "at least one metadata_field" in refused(front, "GetModelMetadata", asked)[1]


def test_states(front):
    asked = protos.GetModelStatusRequest()
    asked.model_spec.name = "severity"
    model = {"service": protos.MODEL_SERVICE}
    response, _ = call(front, "GetModelStatus", asked, protos.GetModelStatusResponse, **model)
    assert [one.version for one in response.model_version_status] == [2, 1]
    assert {one.state for one in response.model_version_status} == {30}  # AVAILABLE
    asked.model_spec.version.value = 9
    status, words = refused(front, "GetModelStatus", asked, **model)
    assert status == "NOT_FOUND"
    assert words == "Could not find version 9 of model severity. engine: no version"


def reload_request(front, base=None, versions=(1, 2), **labels):
    asked = protos.ReloadConfigRequest()
    config = asked.config.model_config_list.config.add(
        name="severity", base_path=str(base or front.root / "severity"), model_platform="tensorflow"
    )
    if versions:
        config.model_version_policy.specific.versions.extend(versions)
    config.version_labels.update(labels)
    return asked


def reload(front, asked):
    options = {"answer": protos.ReloadConfigResponse, "service": protos.MODEL_SERVICE}
    return call(front, "HandleReloadConfigRequest", asked, **options)[0]


def test_reload(front):
    assert reload(front, reload_request(front, live=2, canary=1)).status.error_code == 0
    (model,) = front.engine.reloaded
    assert (model.name, model.versions) == ("severity", (1, 2))
    assert model.labels == {"live": 2, "canary": 1}


def test_reload_by_policy(front):
    asked = reload_request(front, versions=(), live=10)
    reload(front, asked)
    assert front.engine.reloaded[0].versions == (10,)
    asked.config.model_config_list.config[0].model_version_policy.latest.num_versions = 2
    reload(front, asked)
    assert front.engine.reloaded[0].versions == (2, 10)
    asked.config.model_config_list.config[0].model_version_policy.all.SetInParent()
    reload(front, asked)
    assert front.engine.reloaded[0].versions == (1, 2, 10)


@pytest.mark.parametrize("base", ["/etc", "severity/../..", "\0", ""])
def test_reload_serves_nothing_from_elsewhere(front, base):
    before = front.engine.reloaded
    place = base if base in ("", "\0") or base.startswith("/") else str(front.root / base)
    asked = reload_request(front)
    asked.config.model_config_list.config[0].base_path = place
    status, words = refused(front, "HandleReloadConfigRequest", asked, service=protos.MODEL_SERVICE)
    assert status == "INVALID_ARGUMENT"
    assert "outside of the registry" in words
    assert front.engine.reloaded is before


def test_reload_that_fails_says_so(front):
    model = {"service": protos.MODEL_SERVICE}
    status, words = refused(
        front, "HandleReloadConfigRequest", reload_request(front, versions=(9,)), **model
    )
    assert (status, words) == ("INVALID_ARGUMENT", "Version 9 cannot be loaded.")
    empty = protos.ReloadConfigRequest()
    assert "Only ModelConfigList" in refused(front, "HandleReloadConfigRequest", empty, **model)[1]


def test_reload_is_refused_where_others_may_ask(tmp_path):
    with (
        serving(tmp_path, rest_port=None, host="0.0.0.0") as other,
        grpc.insecure_channel(f"127.0.0.1:{other.grpc}") as channel,
    ):
        other.channel, other.root = channel, tmp_path
        status, words = refused(
            other,
            "HandleReloadConfigRequest",
            reload_request(other),
            service=protos.MODEL_SERVICE,
        )
    assert status == "UNIMPLEMENTED"
    assert "allow_reload" in words

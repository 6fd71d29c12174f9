"""models.config as TF Serving's own proto reads it."""

import pytest
from crashes import WHY, model, push
from google.protobuf import text_format

from registry import serving_config
from registry.interface import RegistryError
from registry.local import LocalRegistry
from registry.serving_config import ModelConfig

MODELS = (
    ModelConfig("teacher", "/models/teacher", (4,), {"live": 4}),
    ModelConfig(
        "student", '/models/with "quotes" and \\', (1, 2), {"live": 2, "canary": 1, "traffic-5": 1}
    ),
)


def parsed_by_tf_serving(text):
    """Parses with the proto that the real server is built on."""
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(text, config)
    return {entry.name: entry for entry in config.model_config_list.config}


def test_tf_serving_reads_what_is_rendered():
    config = parsed_by_tf_serving(serving_config.render(MODELS))
    for model_config in MODELS:
        entry = config[model_config.name]
        assert entry.base_path == model_config.base_path
        assert entry.model_platform == "tensorflow"
        assert tuple(entry.model_version_policy.specific.versions) == model_config.versions
        assert dict(entry.version_labels) == model_config.labels


def test_rendering_is_deterministic_and_read_back():
    text = serving_config.render(MODELS)
    assert text == serving_config.render(reversed(MODELS))
    assert serving_config.parse(text) == tuple(sorted(MODELS, key=lambda entry: entry.name))


def test_what_protobuf_prints_is_read_back():
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(serving_config.render(MODELS), config)
    printed = "# edited by hand\n" + text_format.MessageToString(config)
    assert {entry.name: entry for entry in serving_config.parse(printed)} == {
        entry.name: entry for entry in MODELS
    }


def test_empty_file_holds_no_model():
    assert serving_config.parse("") == ()
    assert serving_config.parse(serving_config.render([])) == ()


@pytest.mark.parametrize(
    "text",
    [
        "model_config_list {",
        "model_config_list { config { name: student } }",
        'model_config_list { config { name: "x" } }',
        "custom_model_config { }",
        'model_config_list { config { name: "x" base_path: "/x" logging_config { } } }',
        'model_config_list { config { name: "x" base_path: "/x" version_labels { key: "a" } } }',
        "}",
        "\x00",
    ],
)
def test_what_it_would_lose_or_misread_is_refused(text):
    with pytest.raises(RegistryError, match=r"models\.config cannot be read"):
        serving_config.parse(text)


def test_the_pointer_file_of_a_registry(tmp_path):
    registry = LocalRegistry(tmp_path / "registry", "student")
    for number in (1, 2, 3):
        push(registry, model(tmp_path / str(number), str(number)))
    registry.rollback(**WHY)
    entry = parsed_by_tf_serving((registry.root / "models.config").read_text())["student"]
    assert entry.base_path == str(registry.root / "student")
    assert dict(entry.version_labels) == {"live": 2}
    # Going back needs no loading; what was bad is not loaded, for TF Serving by default answers
    # with the newest that is.
    assert list(entry.model_version_policy.specific.versions) == [1, 2]

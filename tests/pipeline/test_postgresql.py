"""Text with backslashes reaches PostgreSQL and comes back: a stage's settings are full of them."""

import json

import pytest
from ml_metadata.proto import metadata_store_pb2
from ml_metadata.proto import metadata_store_service_pb2 as service

from pipeline import metadata
from pipeline.postgresql import BACKSLASH, STORED, replaced
from tests.pipeline import servers

TEXT = json.dumps({"stage": json.dumps({"name": 'a\\"b', "é": "x"})})


def execution(text: str, key: str = "custom_config") -> metadata_store_pb2.Execution:
    found = metadata_store_pb2.Execution(name=text, type_id=1)
    found.properties[key].string_value = text
    found.properties["number"].int_value = ord(BACKSLASH)
    found.custom_properties["nested"].struct_value.fields["inner"].string_value = text
    return found


def test_all_text_of_a_message_is_replaced_and_comes_back():
    assert BACKSLASH in TEXT
    message = service.PutExecutionsRequest(executions=[execution(TEXT, "k\\ey")])
    before = service.PutExecutionsRequest()
    before.CopyFrom(message)
    replaced(message, BACKSLASH, STORED)
    [sent] = message.executions
    inner = sent.custom_properties["nested"].struct_value.fields["inner"].string_value
    for text in (sent.name, inner, *sent.properties):
        assert BACKSLASH not in text
    assert sent.properties[f"k{STORED}ey"].string_value == sent.name == inner
    assert sent.properties["number"].int_value == ord(BACKSLASH), "a byte that is no text"
    replaced(message, STORED, BACKSLASH)
    assert message == before


@pytest.mark.parametrize("kind", [servers.PostgreSQL, servers.MariaDB], ids=lambda it: it.__name__)
def test_a_server_gives_back_what_it_was_given(kind, monkeypatch):
    if missing := kind.missing():
        pytest.skip(missing)
    with servers.running(kind, "one") as server:
        monkeypatch.setenv(metadata.PASSWORD, server.password)
        store = metadata.store(metadata.parsed(server.address("one")))
        types = metadata_store_pb2.ExecutionType(name="node")
        types.properties["custom_config"] = metadata_store_pb2.STRING
        types.properties["number"] = metadata_store_pb2.INT
        given = execution(TEXT)
        given.type_id = store.put_execution_type(types)
        [number] = store.put_executions([given])
        [found] = store.get_executions_by_id([number])
    assert given.properties["custom_config"].string_value == TEXT, "the caller's was changed"
    assert found.name == TEXT
    assert found.properties["custom_config"].string_value == TEXT
    assert found.custom_properties == given.custom_properties

"""LiteRT files and the folder of a model: nothing but what an export consists of."""

import os
import struct

import pytest

from serving import graphs
from serving.allowlist import file_problems, lite_problems
from tests.serving.exports import student


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return student(tmp_path_factory.mktemp("exports") / "student")


@pytest.fixture
def copy(honest, tmp_path):
    """A folder that holds an export and may be spoilt."""
    folder = tmp_path / "model"
    for file in honest.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(honest)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder


# ------------------------------------------------------------------ LiteRT files


def flatbuffer(honest, change):
    content = bytearray((honest / "litert" / "model.int8.tflite").read_bytes())
    change(content)
    return bytes(content)


def codes(content):
    """Where the operator codes lie: (old field, new field) of the first entry."""
    model = struct.unpack_from("<I", content, 0)[0]
    place = graphs._field(content, model, graphs._OPERATOR_CODES)
    entry = place + struct.unpack_from("<I", content, place)[0] + 4
    table = entry + struct.unpack_from("<I", content, entry)[0]
    return [graphs._field(content, table, field) for field in (0, 3)]


def test_an_unknown_operator_is_refused(honest):
    def change(content):
        old, new = codes(content)
        struct.pack_into("<b", content, old, 127)
        struct.pack_into("<i", content, new, 129)  # CALL_ONCE, which runs an initializer

    [problem] = lite_problems(flatbuffer(honest, change))
    assert problem == "it uses built-in operator 129 of LiteRT: no export of ours asks for it"


def test_a_custom_operator_is_refused():
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    code = schema.OperatorCodeT()
    code.builtinCode, code.customCode = schema.BuiltinOperator.CUSTOM, "FlexReadFile"
    model.operatorCodes = [code]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    [problem] = lite_problems(bytes(builder.Output()))
    assert problem == "it uses the custom operator 'FlexReadFile': no export of ours asks for it"


def test_weights_in_other_files_are_refused():
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, group = schema.ModelT(), schema.ExternalBufferGroupT()
    group.name = "/etc/passwd"
    model.externalBufferGroups = [group]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    [problem] = lite_problems(bytes(builder.Output()))
    assert problem == "it keeps weights in other files."


@pytest.mark.parametrize("keep", [0, 3, 8, 12, 40])
def test_a_cut_file_is_refused(honest, keep):
    content = (honest / "litert" / "model.int8.tflite").read_bytes()
    [problem] = lite_problems(content[:keep])
    assert "TFL3" in problem or "damaged" in problem


def test_no_damage_raises_anything_else(honest):
    """Every byte of the head, where the tables' offsets are, set to what leads astray."""
    content = (honest / "litert" / "model.float.tflite").read_bytes()
    for place in range(min(len(content), 400)):
        for value in (0, 255):
            spoilt = content[:place] + bytes([value]) + content[place + 1 :]
            assert isinstance(lite_problems(spoilt), list)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model.h5", "Keras runs code"),
        ("best.keras", "Keras runs code"),
        ("weights.pkl", "pickled Python objects"),
        ("labels.npy", "pickled Python objects"),
        ("assets/vocabulary.txt", "nothing but their variables"),
        ("assets.extra/run.sh", "nothing but their variables"),
        ("saved_model.pbtxt", "no file of an exported model"),
        ("saved_model.cpb", "no file of an exported model"),
        ("variables/more.txt", "no file of an exported model"),
        ("debug/saved_model_debug_info.pb", "no file of an exported model"),
        ("litert/model.other.tflite", "no file of an exported model"),
    ],
)
def test_a_file_that_no_export_has_is_refused(copy, name, why):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"x")
    [problem] = file_problems(copy)
    assert problem.startswith(f"{name} is no file of an exported model")
    assert why in problem


def test_links_are_refused(copy, tmp_path):
    (copy / "golden.npz").rename(tmp_path / "elsewhere")
    os.link(tmp_path / "elsewhere", copy / "golden.npz")
    assert file_problems(copy) == ["golden.npz is a hard link: it is a file elsewhere too; copy it"]
    (copy / "golden.npz").unlink()
    (copy / "golden.npz").symlink_to(tmp_path / "elsewhere")
    [problem] = file_problems(copy)
    assert "golden.npz" in problem
    assert "symbolic link" in problem


def test_special_files_and_linked_folders_are_refused(copy, tmp_path):
    os.mkfifo(copy / "fingerprint2.pb")
    assert "special file" in file_problems(copy)[0]
    (copy / "fingerprint2.pb").unlink()
    (copy / "assets").symlink_to(tmp_path)
    assert "symbolic link" in file_problems(copy)[0]


def test_sizes_have_an_end(copy):
    with (copy / "saved_model.pb").open("r+b") as file:
        file.truncate((64 << 20) + 1)
    assert file_problems(copy) == [
        "saved_model.pb has 67108865 bytes, more than the 67108864 that are read"
    ]


def test_without_a_graph_it_is_no_model(copy, tmp_path):
    (copy / "saved_model.pb").unlink()
    assert file_problems(copy) == ["saved_model.pb is missing"]
    assert "no model folder" in file_problems(tmp_path / "nowhere")[0]

"""What a model may ask for: all that our exports do, and nothing else, wherever it is hidden."""

import collections
import json
import os
import struct

import pytest

from serving import allowlist, graphs
from serving.allowlist import file_problems, graph_problems, lite_problems
from tests.serving.exports import edited, function_named, student, swapped, teacher


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


# ------------------------------------------------------------------ the list and our exports


def test_an_export_of_ours_passes(honest):
    assert file_problems(honest) == []
    assert graph_problems((honest / "saved_model.pb").read_bytes()) == []
    for kind in ("int8", "float"):
        assert lite_problems((honest / "litert" / f"model.{kind}.tflite").read_bytes()) == []


def test_serving_json_names_what_was_found(honest):
    asked = allowlist.asked_by(honest)
    kinds = ("graph", "function", "save", "restore")
    told = json.loads((honest / "serving.json").read_text())["ops"]
    assert told == sorted(set().union(*(asked[kind] for kind in kinds)))


@pytest.mark.slow
def test_the_list_is_what_our_exports_ask_for(tmp_path):
    """Neither less nor more. After a change to an exporter:

    `python -m serving.allowlist EXPORT …` prints the list anew; read what it adds.
    """
    from trainer import architectures, export, litert, quantization
    from trainer.config import InputSettings

    folders = [
        student(tmp_path / "student"),
        student(tmp_path / "colour", 3),
        teacher(tmp_path / "r18"),
        teacher(tmp_path / "odd", 33, stem="cifar"),
        teacher(tmp_path / "sk", depth=50, sk_ratio=0.0625),
        teacher(tmp_path / "colours", channels=3, sk_ratio=0.0625),
    ]
    union = collections.defaultdict(set)
    for folder in folders:
        for kind, items in allowlist.asked_by(folder).items():
            union[kind] |= items
    settings = InputSettings(image_size=32)
    built = architectures.build(
        "student", architectures.StudentArchitecture(filters=(4, 8), dense=8, classes=3), settings
    )
    rounded = quantization.QuantizedStudent(built)
    rounded(np_zeros(32))
    operators = graphs.lite_operators(litert.convert_quantized(rounded, settings))
    union["lite"] |= {str(code) for code, _ in operators}
    assert export.FORMAT == 1
    assert dict(union) == {kind: set(items) for kind, items in allowlist.allowed().items()}


def np_zeros(size):
    import numpy as np

    return np.zeros((1, size, size, 1), np.float32)


# ------------------------------------------------------------------ graphs


def of_tensorflow(name):
    """An operation as TensorFlow itself exports it, in a signature."""
    import tensorflow as tf

    def constant(count):
        return tf.ones([count, 3]) / 3

    def read(images, count):
        with tf.control_dependencies([tf.io.read_file("/etc/hostname")]):
            return constant(count)

    def write(images, count):
        with tf.control_dependencies([tf.io.write_file("/tmp/owned", "x")]):
            return constant(count)

    def match(images, count):
        with tf.control_dependencies([tf.io.matching_files("/*")]):
            return constant(count)

    def log(images, count):
        with tf.control_dependencies([tf.print(images)]):
            return constant(count)

    def python(images, count):
        return tf.reshape(tf.numpy_function(lambda: None, [], tf.float32), [count, 3])

    def restore(images, count):
        return tf.raw_ops.RestoreV2(
            prefix="/other/variables", tensor_names=["w"], shape_and_slices=[""],
            dtypes=[tf.float32],
        )[0]  # fmt: skip

    return {
        "ReadFile": read, "WriteFile": write, "MatchingFiles": match, "PrintV2": log,
        "PyFunc": python, "RestoreV2": restore,
    }[name]  # fmt: skip


REASONS = {
    "ReadFile": "it reads files",
    "WriteFile": "it writes files",
    "MatchingFiles": "it reads files",
    "PrintV2": "it writes what the model sees to a log or a file",
    "PyFunc": "it runs Python",
    "RestoreV2": "it reads files",
}


@pytest.mark.parametrize("name", REASONS)
def test_an_operation_in_a_signature_is_refused(honest, tmp_path, name):
    folder = swapped(honest, tmp_path / "model", of_tensorflow(name))
    problems = graph_problems((folder / "saved_model.pb").read_bytes())
    assert any(f"uses {name}: {REASONS[name]}" in problem for problem in problems), problems


def node(owner, op, name="hidden"):
    added = owner.add()
    added.name, added.op = name, op
    return added


HIDDEN = [
    ("WholeFileReaderV2", "it reads files"),
    ("EagerPyFunc", "it runs Python"),
    ("LoadAndRemapMatrix", "it reads files"),
    ("TextLineDataset", "it reads files"),
    ("InitializeTableFromTextFileV2", "it reads files"),
    ("SaveV2", "it writes files"),
    ("HashTableV2", "it changes the model's state"),
    ("AssignVariableOp", "it changes the model's state"),
    ("SomebodysCustomOp", "no export of ours asks for it"),
    ("DecodeGif", "no export of ours asks for it"),
]


@pytest.mark.parametrize(("op", "reason"), HIDDEN)
@pytest.mark.parametrize("where", ["graph", "unused function", "called function", "restore"])
def test_an_operation_is_found_wherever_it_hides(honest, where, op, reason):
    def change(meta):
        library = meta.graph_def.library
        if where == "graph":
            node(meta.graph_def.node, op)
        elif where == "restore":
            node(function_named(meta, "traced_restore").node_def, op)
        else:
            added = library.function.add()
            added.signature.name = "evil"
            node(added.node_def, op)
            if where == "called function":  # at depth two
                outer = library.function.add()
                outer.signature.name = "outer"
                call = node(outer.node_def, "StatefulPartitionedCall", "inner_call")
                call.attr["f"].func.name = "evil"
                call = node(
                    function_named(meta, "signature_wrapper").node_def,
                    "StatefulPartitionedCall",
                    "call",
                )
                call.attr["f"].func.name = "outer"

    allowed_there = where == "restore" and op == "AssignVariableOp"
    place = {"graph": "the graph", "restore": "function __inference__traced_restore"}
    problems = graph_problems(edited(honest, change))
    told = [problem for problem in problems if f"uses {op}: {reason}" in problem]
    assert bool(told) != allowed_there
    assert all(problem.startswith(place.get(where, "function evil")) for problem in told)


def add_asset(meta):
    meta.asset_file_def.add().filename = "../../etc/passwd"


def add_initializer(meta):
    """An initializer is what a loader runs by itself."""
    call = node(meta.graph_def.node, "StatefulPartitionedCall", "start")
    call.attr["f"].func.name = function_named(meta, "traced_save").signature.name
    meta.collection_def["saved_model_main_op"].node_list.value[:] = ["start"]


def use_save_node(meta):
    output = meta.signature_def["predict_images"].outputs["probabilities"]
    output.name = meta.saver_def.save_tensor_name


def main_op_restores(meta):
    meta.collection_def["saved_model_main_op"].node_list.value[:] = [meta.saver_def.restore_op_name]


def call_restore_in_signature(meta):
    call = node(
        function_named(meta, "signature_wrapper").node_def, "StatefulPartitionedCall", "call"
    )
    call.attr["f"].func.name = function_named(meta, "traced_restore").signature.name


def call_as_operation(meta):
    name = function_named(meta, "traced_save").signature.name
    node(function_named(meta, "signature_wrapper").node_def, name)


def in_a_list_of_functions(meta):
    call = node(function_named(meta, "signature_wrapper").node_def, "If", "case")
    name = function_named(meta, "traced_restore").signature.name
    call.attr["branches"].list.func.add().name = name


def nested_in_attributes(meta):
    call = node(function_named(meta, "signature_wrapper").node_def, "If", "case")
    inner = call.attr["then_branch"].func
    inner.name = function_named(meta, "map_while").signature.name
    inner.attr["f"].func.name = function_named(meta, "traced_restore").signature.name


def offer_to_python(meta):
    name = function_named(meta, "traced_save").signature.name
    meta.object_graph_def.concrete_functions[name].bound_inputs.append(1)


def restore_from_elsewhere(meta):
    function = function_named(meta, "traced_restore")
    [restoring] = [each for each in function.node_def if each.op == "RestoreV2"]
    restoring.input[0] = "RestoreV2/tensor_names:output:0"


def feed_another_name(meta):
    """The restoring call takes its prefix from the graph instead of the loader."""
    [call] = [each for each in meta.graph_def.node if each.name == meta.saver_def.restore_op_name]
    call.input[0] = "Const"


def rename_saver(meta):
    meta.saver_def.restore_op_name = ""


def replace_by_interface(meta):
    """Grappler exchanges functions of one interface: a harmless one for another."""
    function_named(meta, "signature_wrapper").attr["api_implements"].s = b"x"


def own_gradient(meta):
    meta.graph_def.library.registered_gradients.add().gradient_func = "evil"


def resource_object(meta):
    meta.object_graph_def.nodes.add().resource.device = "/cpu:0"


def registered_saver(meta):
    meta.object_graph_def.nodes[0].registered_saver = "Evil"


def registered_class(meta):
    meta.object_graph_def.nodes[0].registered_name = "Evil>Layer"


def keras_object(meta):
    meta.object_graph_def.nodes[0].user_object.identifier = "_tf_keras_model"


def attribute(meta):
    function = function_named(meta, "signature_wrapper")
    function.node_def[0].attr["_XlaMustCompile"].b = True


def another_tag(meta):
    meta.meta_info_def.tags.append("train")


def another_signature(meta):
    meta.signature_def["backdoor"].CopyFrom(meta.signature_def["predict_images"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_asset, "reads the asset '../../etc/passwd'"),
        (add_initializer, "the function that saves variables is called by more than the loader"),
        (use_save_node, "a signature uses what the loader calls"),
        (main_op_restores, "a signature uses what the loader calls"),
        (call_restore_in_signature, "that restores variables is called by more than the loader"),
        (call_as_operation, "uses __inference__traced_save"),
        (in_a_list_of_functions, "that restores variables is called by more than the loader"),
        (nested_in_attributes, "that restores variables is called by more than the loader"),
        (offer_to_python, "the function that saves variables is called by more than the loader"),
        (restore_from_elsewhere, "restores from a file of its own choice"),
        (feed_another_name, "uses RestoreV2: it reads files"),
        (rename_saver, "uses RestoreV2: it reads files"),
        (replace_by_interface, "uses api_implements: no export of ours"),
        (own_gradient, "brings gradient functions of its own"),
        (resource_object, "an object that loading restores uses resource"),
        (registered_saver, "uses registered:Evil"),
        (registered_class, "uses registered:Evil>Layer"),
        (keras_object, "uses user_object:_tf_keras_model"),
        (attribute, "uses _XlaMustCompile"),
        (another_tag, "the graph's tags uses train"),
        (another_signature, "the list of signatures uses backdoor"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_loader_would_do_by_itself_is_looked_at(honest, change, message):
    problems = graph_problems(edited(honest, change))
    assert any(message in problem for problem in problems), problems


def test_a_second_graph_is_looked_at_too(honest):
    model = graphs.parse_saved_model((honest / "saved_model.pb").read_bytes())
    second = model.meta_graphs.add()
    node(second.graph_def.node, "ReadFile")
    problems = graph_problems(model.SerializeToString())
    assert problems == ["the graph (node hidden) uses ReadFile: it reads files"]


def test_a_long_list_is_cut_and_strangers_text_made_printable(honest):
    def change(meta):
        for index in range(9):
            node(meta.graph_def.node, f"Evil{index}", "\x1b[31m" + "n" * 1000)

    problems = graph_problems(edited(honest, change))
    assert len(problems) == 6
    assert problems[-1] == "and 4 more of the kind"
    assert all(problem.isprintable() and len(problem) <= 300 for problem in problems)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no graph"),
        (b"\x08\x01", "holds no graph"),
        (b"\xff" * 50, "cannot be parsed"),
        (b"\x12\x7f\x00", "cannot be parsed"),
    ],
)
def test_what_is_no_graph_is_refused(content, message):
    [problem] = graph_problems(content)
    assert message in problem


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

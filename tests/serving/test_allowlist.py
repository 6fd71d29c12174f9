"""What a model may ask for: all that our exports do, and nothing else, wherever it is hidden."""

import collections
import json

import pytest

from serving import allowlist, graphs
from serving.allowlist import file_problems, graph_problems, lite_problems
from tests.serving.exports import edited, function_named, student, swapped, teacher


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return student(tmp_path_factory.mktemp("exports") / "student")


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

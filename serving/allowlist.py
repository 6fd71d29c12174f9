"""What a model may ask of the machine that runs it: what our own exports ask, and nothing else.

A SavedModel is a program. It can read files, write them and run Python, in its graph, in functions
called at any depth, and while it is loaded; lists of what is forbidden have missed all three. So
the list says what is allowed, and is not made by hand: `allowed_ops.json` is the union of what the
exports of `trainer` ask for, and a test holds it against them.

    python -m serving.allowlist FOLDER …      # prints what exports ask for, as that file has it

Nothing of the model is run here, and TensorFlow is not loaded.
"""

import collections
import functools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from registry import manifest
from registry.interface import RegistryError
from serving import graphs
from serving.graphs import GraphError, functions_named

ALLOWED = Path(__file__).with_name("allowed_ops.json")

GRAPH, LITE = "saved_model.pb", "litert/model.{}.tflite"
KINDS = ("int8", "float")  # of LiteRT files

# Every file that an exported model consists of, and the most bytes of each.
_FILES = (
    (r"saved_model\.pb", 64 << 20),
    (r"fingerprint\.pb", 64 << 10),
    (r"variables/variables\.index", 16 << 20),
    (r"variables/variables\.data-\d{5}-of-\d{5}", manifest.MAX_BYTES),
    (r"litert/model\.(int8|float)\.tflite", 1 << 30),
    (r"(litert/check|serving)\.json", 1 << 20),
    (r"(golden|input_gate)\.npz", 16 << 20),
)
_MOST_TOLD, _LONGEST_NAME = 5, 80

# Why an operation is refused, by the first pattern that its name begins with.
_REASONS = (
    (r"(Eager)?Py|NumpyFunc", "it runs Python"),
    (r"Print|.*Summary", "it writes what the model sees to a log or a file"),
    (r"(Write|Save|Merge|Delete|ShardedFilename)", "it writes files"),
    (
        r".*(ReadFile|Reader|Dataset|MatchingFiles|FromTextFile|Restore|LoadAndRemap|Snapshot)",
        "it reads files",
    ),
    (r"(Assign|Initialize|Hash|Lookup|.*Table|.*Queue|Barrier)", "it changes the model's state"),
)
_NOT_OURS = "no export of ours asks for it"
_VARIABLES_ONLY = "our models read nothing but their variables"

_SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")
_PREFIX = "file_prefix"  # the argument through which the loader says where the variables lie


class Demand(NamedTuple):
    """One thing that a model asks for.

    Attributes:
        kind: a key of `allowed_ops.json`.
        item: what.
        where: in which part of the model, in words.
    """

    kind: str
    item: str
    where: str


@functools.cache
def allowed() -> dict[str, frozenset[str]]:
    """What models may ask for, by kind."""
    return {kind: frozenset(items) for kind, items in json.loads(ALLOWED.read_text()).items()}


def file_problems(folder: Path) -> list[str]:
    """What is wrong with the files of a model's folder, in words; empty when nothing is.

    Links, names that lead out of the folder, files that no export has, and sizes beyond reason.
    """
    try:
        sizes = manifest.scan(folder)
    except RegistryError as error:
        return [str(error)]
    problems = []
    for path, size in sizes.items():
        most = next((most for form, most in _FILES if re.fullmatch(form, path)), None)
        if most is None:
            problems.append(f"{path} is no file of an exported model{_why_file(path)}")
        elif size > most:
            problems.append(f"{path} has {size} bytes, more than the {most} that are read")
        elif (folder / path).lstat().st_nlink > 1:
            problems.append(f"{path} is a hard link: it is a file elsewhere too; copy it")
    problems += [f"{path} is missing" for path in (GRAPH,) if path not in sizes]
    return _first(problems)


def _why_file(path: str) -> str:
    if path.endswith((".h5", ".hdf5", ".keras")):
        return ": Keras runs code out of such files when it loads them"
    if path.endswith((".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy")):
        return ": such a file can hold pickled Python objects, which run code"
    if path.startswith(("assets/", "assets.extra/")):
        return f": {_VARIABLES_ONLY}"
    return ""


def graph_problems(content: bytes) -> list[str]:
    """What `saved_model.pb` asks for and may not have, in words; empty when nothing is."""
    try:
        model = graphs.parse_saved_model(content)
    except GraphError as error:
        return [str(error)]
    problems = [
        f"{demand.where} uses {_short(demand.item)}: {_why(demand)}"
        for demand in demands(model)
        if demand.item not in allowed()[demand.kind]
    ]
    for graph in model.meta_graphs:
        problems += _asset_problems(graph)
        problems += _saver_problems(graph)
    return _first(problems)


def lite_problems(content: bytes) -> list[str]:
    """What a `.tflite` file asks for and may not have, in words; empty when nothing is."""
    try:
        operators = graphs.lite_operators(content)
    except GraphError as error:
        return [str(error)]
    return _first(
        [
            f"it uses the custom operator {custom!r}: {_NOT_OURS}"
            if custom
            else f"it uses built-in operator {code} of LiteRT: {_NOT_OURS}"
            for code, custom in operators
            if custom or str(code) not in allowed()["lite"]
        ]
    )


def demands(model: Any) -> Iterator[Demand]:
    """All that a parsed SavedModel asks for, each mention of it."""
    for graph in model.meta_graphs:
        for tag in graph.meta_info_def.tags:
            yield Demand("tag", tag, "the graph's tags")
        for name in graph.collection_def:
            yield Demand("collection", name, "the graph's collections")
        for name in graph.signature_def:
            yield Demand("signature", name, "the list of signatures")
        for node in graph.graph_def.node:
            yield from _of_node("graph", node, f"the graph (node {_short(node.name)})")
        roles = _saver_roles(graph)
        for function in graph.graph_def.library.function:
            name = function.signature.name
            for key in function.attr:
                yield Demand("function attribute", key, f"function {_short(name)}")
            for node in function.node_def:
                kind = roles.get(name, "function")
                yield from _of_node(
                    kind, node, f"function {_short(name)} (node {_short(node.name)})"
                )
        for thing in graph.object_graph_def.nodes:
            yield from _of_object(thing)


def _of_node(kind: str, node: Any, where: str) -> Iterator[Demand]:
    yield Demand(kind, node.op, where)
    for key in node.attr:
        if key.startswith("_"):  # directions to the runtime, beyond what the operation declares
            yield Demand("attribute", key, where)


def _of_object(thing: Any) -> Iterator[Demand]:
    kind = thing.WhichOneof("kind") or "nothing"
    name = f"user_object:{thing.user_object.identifier}" if kind == "user_object" else kind
    yield Demand("object", name, "an object that loading restores")
    registered = (thing.registered_name, thing.registered_saver, *thing.saveable_objects)
    for name in filter(None, registered):
        yield Demand("object", f"registered:{name}", "an object that loading restores")


def _why(demand: Demand) -> str:
    if demand.kind not in {"graph", "function", "save", "restore"}:
        return _NOT_OURS
    return next((why for pattern, why in _REASONS if re.match(pattern, demand.item)), _NOT_OURS)


def _asset_problems(graph: Any) -> Iterator[str]:
    for asset in graph.asset_file_def:
        yield f"it reads the asset {_short(asset.filename)!r}: {_VARIABLES_ONLY}"
    library = graph.graph_def.library
    if library.gradient or library.registered_gradients:
        yield f"the graph brings gradient functions of its own: {_NOT_OURS}"


def _saver_roles(graph: Any) -> dict[str, str]:
    """The two functions through which a loader saves and restores variables → `save`, `restore`.

    Recognised by the saver's own record, by the name that `tf.saved_model.save` gives them, and by
    taking the place of the variables as an argument. What else looks like them is a function as
    any other, in which their operations are refused.
    """
    nodes = {node.name: node for node in graph.graph_def.node}
    functions = {each.signature.name: each for each in graph.graph_def.library.function}
    saver, roles = graph.saver_def, {}
    for role, name in (("save", saver.save_tensor_name), ("restore", saver.restore_op_name)):
        node = nodes.get(_owner(name))
        if node is None or node.op != "StatefulPartitionedCall" or not node.input:
            continue
        called = node.attr["f"].func.name
        known = _SAVER.fullmatch(called)
        arguments = functions[called].signature.input_arg if called in functions else ()
        from_loader = _owner(node.input[0]) == _owner(saver.filename_tensor_name)
        if (
            known is not None
            and known[1] == role
            and from_loader
            and arguments
            and arguments[0].name == _PREFIX
        ):
            roles[called] = role
    return roles


def _saver_problems(graph: Any) -> Iterator[str]:
    """Whether the saver's functions can do nothing but what the loader asks of them."""
    roles = _saver_roles(graph)
    nodes, library = graph.graph_def.node, graph.graph_def.library.function
    names = {_owner(graph.saver_def.save_tensor_name), graph.saver_def.restore_op_name}
    calls = collections.Counter(
        name
        for node in [*nodes, *(node for function in library for node in function.node_def)]
        for name in (node.op, *functions_named(node.attr))
    )
    calls.update(_restored_functions(graph.object_graph_def))
    for function, role in roles.items():
        if calls[function] != 1:
            yield f"the function that {role}s variables is called by more than the loader"
    used = [name for node in nodes for name in node.input] + list(_named_outside(graph))
    if roles and names & {_owner(name) for name in used}:
        yield "the graph or a signature uses what the loader calls to save or restore variables"
    for function in library:
        for node in function.node_def:
            elsewhere = node.op == "RestoreV2" and (not node.input or node.input[0] != _PREFIX)
            if elsewhere and function.signature.name in roles:
                yield f"function {function.signature.name} restores from a file of its own choice"


def _restored_functions(objects: Any) -> Iterator[str]:
    """Functions that a loaded model offers to Python."""
    yield from objects.concrete_functions
    for thing in objects.nodes:
        yield from thing.function.concrete_functions
        yield thing.bare_concrete_function.concrete_function_name


def _named_outside(graph: Any) -> Iterator[str]:
    """Tensors and nodes that signatures and collections name."""
    for signature in graph.signature_def.values():
        for tensor in (*signature.inputs.values(), *signature.outputs.values()):
            yield tensor.name
    for collection in graph.collection_def.values():
        yield from collection.node_list.value


def _owner(tensor: str) -> str:
    """The node that a tensor, or a control input, belongs to."""
    return tensor.removeprefix("^").split(":")[0]


def _first(problems: list[str]) -> list[str]:
    """The problems, told once each and not without end."""
    told = list(dict.fromkeys(problem[:300] for problem in problems))
    if len(told) > _MOST_TOLD:
        told[_MOST_TOLD:] = [f"and {len(told) - _MOST_TOLD} more of the kind"]
    return [_printable(problem) for problem in told]


def _short(name: str) -> str:
    """A name out of a model, which may be of any length."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _printable(text: str) -> str:
    """Names in a model are a stranger's text."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def read(path: Path) -> bytes:
    """Reads a file of a model, which must be no link.

    Raises:
        OSError: it is absent, or a link.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read()


def asked_by(folder: Path) -> dict[str, set[str]]:
    """What an export asks for, by kind, as `allowed_ops.json` has it; for trusted folders only."""
    asked: dict[str, set[str]] = collections.defaultdict(set)
    for demand in demands(graphs.parse_saved_model(read(folder / GRAPH))):
        asked[demand.kind].add(demand.item)
    for kind in KINDS:
        path = folder / LITE.format(kind)
        if path.is_file():
            asked["lite"] |= {str(code) for code, _ in graphs.lite_operators(read(path))}
    return asked


def _main(folders: list[str]) -> None:
    union: dict[str, set[str]] = collections.defaultdict(set)
    for folder in folders:
        for kind, items in asked_by(Path(folder)).items():
            union[kind] |= items
    print(json.dumps({kind: sorted(union[kind]) for kind in sorted(union)}, indent=1))


if __name__ == "__main__":
    _main(sys.argv[1:])

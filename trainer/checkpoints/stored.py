"""What a checkpoint on this machine holds: its variables by place, whatever the format.

Read without building anything: names and shapes come from the index, values when they are asked
for. TensorFlow 2 files carry the graph of the objects that were saved, from which both the object
path of a variable and its name follow; TensorFlow 1 files carry names alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from trainer.checkpoints import names
from trainer.checkpoints.errors import CheckpointError

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_UNREADABLE = (tf.errors.OpError, ValueError, RuntimeError, IndexError)
_MOST_PATHS = 200_000  # of the largest published network: some thousands
_DEEPEST = 12  # steps of an object path; the reference's have 10
_NESTED = ("saved_model", "hub")

Format = Literal[
    "TensorFlow 2 SavedModel", "TensorFlow 1 module", "TensorFlow 2 checkpoint",
    "TensorFlow 1 checkpoint",
]  # fmt: skip


class _Tangled(Exception):
    """An object graph has more paths than any network."""


@dataclass(frozen=True)
class StoredVariable:
    """One variable of a file: the name it was saved with, the key of its value, its shape."""

    name: str
    key: str
    shape: tuple[int, ...]


class Stored:
    """A checkpoint's variables.

    Attributes:
        origin: folder or checkpoint prefix.
        format: what wrote it.
        by: whether `variables` is keyed by object path or by TensorFlow 1 name.
        variables: by their place in the network.
        others: those that belong to no part of it: optimizer slots, counters.
        saved_model: folder of a model that can be called, or None.
    """

    def __init__(self, origin: Path, prefix: Path, saved_model: Path | None):
        self.origin = origin
        self.saved_model = saved_model
        try:
            self._reader = tf.train.load_checkpoint(str(prefix))
            shapes = self._reader.get_variable_to_shape_map()
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{prefix}.index cannot be read: {_first_line(error)}. The file is damaged or not "
                "whole; fetch it again."
            ) from error
        graph = self._graph(shapes) if _GRAPH in shapes else None
        shapes.pop(_GRAPH, None)
        self.format: Format = _format(graph is not None, saved_model is not None)
        self._shapes = {key: tuple(shape) for key, shape in shapes.items()}
        self.by: Literal["path", "name"] = "name"
        self.variables: dict[str, StoredVariable] = {}
        if graph is not None:
            self.by, self.variables = "path", self._by_path(graph)
        if not self.variables:
            self.by, self.variables = "name", self._by_name(graph)
        used = {variable.key for variable in self.variables.values()}
        saved_names = _saved_names(graph) if graph is not None else {}
        self.others = tuple(
            StoredVariable(saved_names.get(key) or key, key, shape)
            for key, shape in sorted(self._shapes.items())
            if key not in used
        )

    def value(self, variable: StoredVariable) -> np.ndarray:
        """Reads one variable.

        Raises:
            CheckpointError: its bytes are missing or damaged.
        """
        try:
            return self._reader.get_tensor(variable.key)
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{self.origin}: the value of {variable.name} {list(variable.shape)} cannot be "
                f"read: {_first_line(error)}. The file is truncated or damaged; fetch it again."
            ) from error

    def kernels(self) -> list[StoredVariable]:
        """Convolution kernels of the backbone, in the order in which the layers were created."""
        if self.by == "path":
            roots = ("resnet_model/initial_conv_relu_max_pool/", "resnet_model/block_groups/")
            inside = [place for place in self.variables if place.startswith(roots)]
            ordered = sorted(
                (place for place in inside if place.endswith("/kernel")), key=names.creation_order
            )
        else:
            inside = [p for p in self.variables if p.startswith(f"{names.BACKBONE}/conv2d")]
            ordered = sorted(inside, key=names.number)
        return [self.variables[place] for place in ordered]

    def _graph(self, shapes: dict) -> trackable_object_graph_pb2.TrackableObjectGraph:
        try:
            serialized = self._reader.get_tensor(_GRAPH)
        except _UNREADABLE as error:
            # It lies among the values: a file cut short has lost variables too.
            lost = [key for key in sorted(shapes) if key != _GRAPH and not self._readable(key)]
            named = _names_in_saved_model(self.saved_model) if self.saved_model else {}
            which = (
                f"{named.get(lost[0], lost[0])} {shapes[lost[0]]}" if lost else "its object graph"
            )
            more = f" and {len(lost) - 1} more variables" if len(lost) > 1 else ""
            raise CheckpointError(
                f"{self.origin}: the value of {which}{more} cannot be read: {_first_line(error)}. "
                "The file is truncated or damaged; fetch it again."
            ) from error
        try:
            graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(serialized)
        except (DecodeError, TypeError) as error:
            raise self._damaged(f"it cannot be decoded ({_first_line(error)})") from error
        count = len(graph.nodes)
        strays = {child.node_id for node in graph.nodes for child in node.children}
        strays -= set(range(count))
        if strays:
            raise self._damaged(f"it names object {min(strays)} and has {count}")
        return graph

    def _damaged(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.origin}: the object graph, which says where each variable belongs, is damaged: "
            f"{problem}. Fetch the checkpoint again."
        )

    def _readable(self, key: str) -> bool:
        try:
            self._reader.get_tensor(key)
        except _UNREADABLE:
            return False
        return True

    def _by_path(self, graph) -> dict[str, StoredVariable]:
        owner = next(
            (
                node_id
                for node_id, node in enumerate(graph.nodes)
                if any(child.local_name == "resnet_model" for child in node.children)
            ),
            None,
        )
        if owner is None:
            return {}
        try:
            return {
                path: StoredVariable(name or path, key, self._shapes[key])
                for path, key, name in _walk(graph, owner)
                if key in self._shapes
            }
        except _Tangled:
            raise self._damaged("its objects lead to one another without end") from None

    def _by_name(self, graph) -> dict[str, StoredVariable]:
        keys = {key: key for key in self._shapes}
        if graph is not None:
            keys = {name or key: key for key, name in _saved_names(graph).items()}
        found: dict[str, StoredVariable] = {}
        for name, place in names.places(keys).items():
            variable = StoredVariable(name, keys[name], self._shapes[keys[name]])
            if place in found:
                raise CheckpointError(
                    f"{self.origin} holds two networks: {found[place].name} and {name} are both "
                    f"{place}. Save the one that is wanted by itself."
                )
            found[place] = variable
        return found


def read(location: Path) -> Stored:
    """Finds what lies at a place, and reads its index.

    Args:
        location: folder of a SavedModel or of a TensorFlow 1 module, or of one of these named
            `saved_model` or `hub`; a folder with checkpoints, of which the latest is taken; or a
            checkpoint's prefix (`model.ckpt-1000`) or one of its files.

    Raises:
        CheckpointError: nothing of the kind is there, or it cannot be read.
    """
    if (location / "saved_model.pb").is_file():
        if not (location / "variables" / "variables.index").is_file():
            raise CheckpointError(
                f"{location} has a saved_model.pb, but no variables/variables.index: it was not "
                "copied whole. Copy the folder again."
            )
        return Stored(location, location / "variables" / "variables", location)
    nested = [location / name for name in _NESTED if (location / name).is_dir()]
    if len(nested) == 1:
        return read(nested[0])
    for prefix in _prefixes(location):
        if Path(f"{prefix}.index").is_file():
            return Stored(prefix, prefix, None)
    there = sorted(path.name for path in location.iterdir()) if location.is_dir() else "nothing"
    raise CheckpointError(
        f"No checkpoint at {location} (found there: {there}). It can be a SavedModel's folder "
        "(saved_model.pb, variables/), a TensorFlow 1 module, a checkpoint such as "
        "model.ckpt-1000 (with .index and .data files), or a model's folder of ours (bundle/)."
    )


def _prefixes(location: Path) -> Iterator[Path]:
    yield location
    for suffix in (".index", ".meta"):
        if location.name.endswith(suffix):
            yield location.with_name(location.name.removesuffix(suffix))
    if ".data-" in location.name:
        yield location.with_name(location.name.partition(".data-")[0])
    if location.is_dir():
        yield location / "variables"
        yield location / "variables" / "variables"
        latest = tf.train.latest_checkpoint(str(location))
        if latest is not None:
            # A folder that was moved still names the place where it was written.
            yield location / Path(latest).name
        yield from sorted(path.with_suffix("") for path in location.glob("*.index"))[-1:]


def _format(has_graph: bool, callable_: bool) -> Format:
    if has_graph:
        return "TensorFlow 2 SavedModel" if callable_ else "TensorFlow 2 checkpoint"
    return "TensorFlow 1 module" if callable_ else "TensorFlow 1 checkpoint"


def _walk(graph, owner: int) -> Iterator[tuple[str, str, str]]:
    """Object path, key and name of each variable below a node, along the reference's steps.

    Keras tells of a layer under several names, so an object is visited by each of its paths; only
    a path that comes back to an object of its own goes no further.

    Raises:
        _Tangled: there are more paths than any network has.
    """
    left = _MOST_PATHS
    waiting: list[tuple[int, tuple[str, ...], frozenset[int]]] = [(owner, (), frozenset())]
    while waiting:
        node_id, path, above = waiting.pop()
        node = graph.nodes[node_id]
        left -= 1
        if not left:
            raise _Tangled
        for attribute in node.attributes:
            if attribute.name == _VALUE and path:
                yield "/".join(path), attribute.checkpoint_key, attribute.full_name
        if len(path) < _DEEPEST:
            waiting += [
                (child.node_id, (*path, child.local_name), above | {node_id})
                for child in reversed(node.children)
                if names.is_step(child.local_name) and child.node_id not in above | {node_id}
            ]


def _saved_names(graph) -> dict[str, str]:
    """The name that each value's variable had, by key."""
    return {
        attribute.checkpoint_key: attribute.full_name
        for node in graph.nodes
        for attribute in node.attributes
        if attribute.name == _VALUE
    }


def _names_in_saved_model(folder: Path) -> dict[str, str]:
    """Names of variables by key, which `saved_model.pb` knows too; none if it cannot be read."""
    try:
        content = (folder / "saved_model.pb").read_bytes()
        nodes = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].object_graph_def.nodes
        named: dict[str, str] = {}
        paths = {0: ""}
        for node_id in (queue := [0]):
            for child in nodes[node_id].children if nodes else ():
                if child.node_id not in paths:
                    paths[child.node_id] = f"{paths[node_id]}{child.local_name}/"
                    queue.append(child.node_id)
                    key = f"{paths[child.node_id]}.ATTRIBUTES/{_VALUE}"
                    named[key] = nodes[child.node_id].variable.name
    except (OSError, DecodeError, IndexError):
        return {}
    return {key: name for key, name in named.items() if name}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""Object graphs of checkpoints: damaged ones, and ones with circles."""

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from trainer.checkpoints.errors import CheckpointError
from trainer.checkpoints.stored import read


def undecodable(graph):
    return b"\xff\xff no graph"


def leads_nowhere(graph):
    graph.nodes[1].children.add(local_name="block_groups", node_id=99)
    return graph.SerializeToString()


def all_lead_to_all(graph):
    for node in graph.nodes:
        for position in range(len(graph.nodes)):
            node.children.add(local_name=str(position), node_id=position)
    return graph.SerializeToString()


def goes_round(graph):
    graph.nodes[1].children.add(local_name="layers", node_id=0)
    graph.nodes[1].attributes.add(name="VARIABLE_VALUE", checkpoint_key="value")
    return graph.SerializeToString()


def with_graph(folder, change):
    """A checkpoint of one number, whose object graph `change` makes of 40 objects."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    for _ in range(40):
        graph.nodes.add()
    graph.nodes[0].children.add(local_name="resnet_model", node_id=1)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "ckpt"),
        tensor_names=["_CHECKPOINTABLE_OBJECT_GRAPH", "value"],
        shape_and_slices=["", ""],
        tensors=[tf.constant(change(graph)), tf.constant(1.0)],
    )
    return read(folder / "ckpt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (undecodable, "cannot be decoded"),
        (leads_nowhere, "names object 99 and has 40"),
        (all_lead_to_all, "without end"),
    ],
)
def test_a_damaged_object_graph_is_refused(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=f"object graph.* is damaged: .*{message}"):
        with_graph(tmp_path, change)


def test_an_object_graph_may_have_circles(tmp_path):
    assert with_graph(tmp_path, goes_round).variables.keys() == {"resnet_model"}

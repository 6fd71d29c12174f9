"""ImageExampleGen: spans of TFRecords in, examples with image descriptors out.

TFX's own ImportExampleGen, with two things changed. Each image is decoded once, here, and described
by `schema.descriptors`, so that statistics, drift checks and the total-CSF baseline read numbers
instead of bytes, which have no distribution worth comparing. And the spans are found by the
executor, in `dataset.json`, instead of by a driver, whose hook Kubeflow does not call.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.components.example_gen import utils
from tfx.components.example_gen.import_example_gen import executor as import_executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.types import standard_component_specs as keys
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import proto_utils

from schema import descriptors, features
from schema.errors import CortexflowError

DATASET, FACTS, SPANS = "dataset", "facts", "spans"
BATCH = 64  # images described together: large enough for NumPy, small enough for memory


def add_descriptors(records: Sequence[bytes]) -> list[bytes]:
    """Adds `descriptor/*` floats to serialized examples, in order.

    Args:
        records: serialized `tf.train.Example`s, each with one encoded image.

    Returns:
        The same examples, serialized, with one float per descriptor.

    Raises:
        KeyError: an example has no image.
    """
    examples = [tf.train.Example.FromString(record) for record in records]
    encoded = [_image_bytes(example) for example in examples]
    described = descriptors.describe([descriptors.decode(image) for image in encoded])
    for name, values in described.items():
        for example, value in zip(examples, values.tolist(), strict=True):
            feature = example.features.feature[features.DESCRIPTOR_PREFIX + name]
            feature.float_list.value[:] = [value]
    return [example.SerializeToString(deterministic=True) for example in examples]


def _image_bytes(example: tf.train.Example) -> bytes:
    values = example.features.feature[features.IMAGE].bytes_list.value
    if len(values) != 1:
        raise KeyError(
            f"An example must hold exactly one '{features.IMAGE}' (received {len(values)}; "
            f"features: {sorted(example.features.feature)}). Import the data with "
            "`cortexflow ingest`."
        )
    return values[0]


class _Describe(beam.DoFn):
    def process(self, batch: list[bytes]) -> Iterable[tf.train.Example]:
        yield from map(tf.train.Example.FromString, add_descriptors(batch))


class OtherData(CortexflowError):
    """The dataset is not what the pipeline was built for."""


def chosen_spans(info: Mapping[str, Any], facts: Mapping[str, Any], which: str) -> list[str]:
    """Names of the spans to read, of a dataset that is what the pipeline expects.

    Args:
        info: `dataset.json`.
        facts: what the pipeline was built for (pipeline/facts.py).
        which: "all", or "latest".

    Raises:
        OtherData: the dataset's classes, their order, or its known leaks are others.
    """
    told = {"classes": "classes", "severity": "order of severity", "leaked": "known leak"}
    for key, name in told.items():
        if info[key] != facts[key]:
            raise OtherData(
                f"The pipeline was compiled for data of the {name} {facts[key]} (received a "
                f"dataset of {info[key]}). Compile it for this dataset: `cortexflow compile PRESET "
                "--data DATASET`."
            )
    return list(info["spans"][-1:] if which == "latest" else info["spans"])


class Executor(import_executor.Executor):
    """Reads serialized examples and describes their images."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 (TFX's name)
        """Checks the dataset, then reads every split of the chosen spans."""
        dataset, facts = exec_properties[DATASET], json.loads(exec_properties[FACTS])
        with fileio.open(os.path.join(dataset, "dataset.json"), "r") as file:
            spans = chosen_spans(json.loads(file.read()), facts, exec_properties[SPANS])
        # One pattern for all spans: what order the records come in decides what is learnt.
        span = spans[0] if exec_properties[SPANS] == "latest" else "span-*"
        config = example_gen_pb2.Input(
            splits=[
                example_gen_pb2.Input.Split(name=split, pattern=f"{span}/{split}/data-*")
                for split in facts["splits"]
            ]
        )
        output = utils.make_default_output_config(config)
        properties = {
            keys.INPUT_BASE_KEY: dataset,
            keys.INPUT_CONFIG_KEY: proto_utils.proto_to_json(config),
            keys.OUTPUT_CONFIG_KEY: proto_utils.proto_to_json(output),
            keys.OUTPUT_DATA_FORMAT_KEY: example_gen_pb2.FORMAT_TF_EXAMPLE,
            keys.OUTPUT_FILE_FORMAT_KEY: example_gen_pb2.FORMAT_TFRECORDS_GZIP,
        }
        super().Do(input_dict, output_dict, properties)

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802 (TFX's name)
        """Returns the transform from one split's files to described examples."""

        @beam.ptransform_fn
        @beam.typehints.with_input_types(beam.Pipeline)
        @beam.typehints.with_output_types(tf.train.Example)
        def read_and_describe(pipeline, exec_properties, split_pattern):
            pattern = f"{exec_properties[keys.INPUT_BASE_KEY]}/{split_pattern}"
            return (
                pipeline
                | "Read" >> beam.io.ReadFromTFRecord(pattern)
                | "Batch" >> beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
                | "Describe" >> beam.ParDo(_Describe())
            )

        return read_and_describe


class ImageExampleGenSpec(ComponentSpec):
    """`fingerprint` and `code` are read by the cache alone."""

    PARAMETERS = {  # noqa: RUF012 (TFX reads it from the class)
        DATASET: ExecutionParameter(type=str),
        FACTS: ExecutionParameter(type=str),
        SPANS: ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {}  # noqa: RUF012
    OUTPUTS = {  # noqa: RUF012
        keys.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples)
    }


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """TFX node from a dataset folder (`span-N/SPLIT/*`) to examples with descriptors."""

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        dataset: str | RuntimeParameter,
        facts: str,
        spans: str = "all",
        fingerprint: str = "",
        code: str = "",
    ):
        """Reads spans of a dataset.

        Args:
            dataset: the dataset folder that `ingest` wrote, or its address.
            facts: what the dataset must be: `pipeline.facts.Facts` as JSON. Its splits are read.
            spans: "all", or "latest".
            fingerprint: hash of the records, for the cache.
            code: hash of the code that describes images, for the cache.
        """
        super().__init__(
            ImageExampleGenSpec(
                dataset=dataset,
                facts=facts,
                spans=spans,
                fingerprint=fingerprint,
                code=code,
                examples=Channel(type=standard_artifacts.Examples),
            )
        )

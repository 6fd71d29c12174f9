"""CuratedSchema: the contract that people wrote, as an artifact of the run.

Its text is a parameter of the node, so that it is part of the cache key, of the compiled pipeline
and of the lineage, and needs no file that every machine would have to have.
"""

import os

from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Schema as SchemaProto
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import Schema

FILE = "schema.pbtxt"


@component
def CuratedSchema(schema: OutputArtifact[Schema], text: Parameter[str]):  # noqa: N802 (a TFX node)
    """TFX node: publishes `text`, a TensorFlow Metadata schema in protobuf's text form."""
    text_format.Parse(text, SchemaProto())  # a mistake is told here, not by a node that reads it
    with fileio.open(os.path.join(schema.uri, FILE), "w") as file:
        file.write(text)

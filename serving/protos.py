"""TF Serving's messages without TensorFlow.

The modules of `tensorflow-serving-api` import TensorFlow: half a gigabyte and seconds, for the
descriptors of a few small messages. `protos.json` holds those descriptors as the installed packages
have them, and the classes are built from it in a pool of their own, so that they never clash with
TensorFlow's where both are loaded. On the wire they are the same messages.

    python -m serving.protos_derived        # after an upgrade of either package
"""

import json
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

FILE = Path(__file__).with_name("protos.json")

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
SIGNATURE_DEF_TYPE = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for serialized in json.loads(FILE.read_text()).values():
        pool.AddSerializedFile(serialized.encode("latin1"))
    return pool


_POOL = _pool()


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto = _class("tensorflow.TensorProto")
PredictRequest = _class("tensorflow.serving.PredictRequest")
PredictResponse = _class("tensorflow.serving.PredictResponse")
GetModelMetadataRequest = _class("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _class("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = _class("tensorflow.serving.SignatureDefMap")
GetModelStatusRequest = _class("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = _class("tensorflow.serving.GetModelStatusResponse")
ModelVersionStatus = _class("tensorflow.serving.ModelVersionStatus")
ReloadConfigRequest = _class("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = _class("tensorflow.serving.ReloadConfigResponse")

DT_FLOAT: int = _POOL.FindEnumTypeByName("tensorflow.DataType").values_by_name["DT_FLOAT"].number
DT_STRING: int = _POOL.FindEnumTypeByName("tensorflow.DataType").values_by_name["DT_STRING"].number


def error_code(name: str) -> int:
    """Number of TF's error code, which is that of the gRPC status of the same name."""
    return int(_POOL.FindEnumTypeByName("tensorflow.error.Code").values_by_name[name].number)

"""A client built on tensorflow-serving-api alone, as a program: it must not know our code.

Usage: api_client.py ADDRESS MODEL BASE_PATH IMAGE…. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


def main(address, model, base_path, *paths):
    images = [Path(path).read_bytes() for path in paths]
    channel = grpc.insecure_channel(address)
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    management = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(values=None, name="images", signature="", kind=None, **chosen):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = chosen.get("model", model)
        request.model_spec.signature_name = signature
        if "version" in chosen:
            request.model_spec.version.value = chosen["version"]
        if "label" in chosen:
            request.model_spec.version_label = chosen["label"]
        request.inputs[name].CopyFrom(
            tf.make_tensor_proto(images if values is None else values, kind)
        )
        request.output_filter.extend(chosen.get("outputs", ()))
        return prediction.Predict(request, timeout=30)

    def values(response):
        return tf.make_ndarray(response.outputs["probabilities"]).tolist()

    def status(**chosen):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = chosen.get("model", model)
        if "version" in chosen:
            request.model_spec.version.value = chosen["version"]
        return management.GetModelStatus(request, timeout=30)

    def metadata(**chosen):
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = chosen.get("model", model)
        request.metadata_field.extend(chosen.get("fields", ["signature_def"]))
        return prediction.GetModelMetadata(request, timeout=30)

    def reload(*versions, labels):
        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(
            name=model, base_path=base_path, model_platform="tensorflow"
        )
        config.model_version_policy.specific.versions.extend(versions)
        config.version_labels.update(labels)
        return management.HandleReloadConfigRequest(request, timeout=60)

    def refusal(function, *arguments, **keywords):
        try:
            function(*arguments, **keywords)
        except grpc.RpcError as error:
            return [error.code().name, error.details()]
        return ["OK", ""]

    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
            )
        ).SerializeToString()
        for image in images
    ]
    first, second = predict(version=1), predict(label="canary")
    definitions = get_model_metadata_pb2.SignatureDefMap()
    described = metadata()
    described.metadata["signature_def"].Unpack(definitions)
    unloaded = status(version=2)
    answers = {
        "version 1": values(first),
        "version of version 1": first.model_spec.version.value,
        "signature": first.model_spec.signature_name,
        "canary": values(second),
        "version of canary": second.model_spec.version.value,
        "examples": values(predict(examples, "examples", "serving_default", version=1)),
        "filtered": sorted(predict(outputs=["probabilities"]).outputs),
        "states": [
            [one.version, get_model_status_pb2.ModelVersionStatus.State.Name(one.state)]
            for one in status().model_version_status
        ],
        "one state": [one.version for one in unloaded.model_version_status],
        "metadata version": described.model_spec.version.value,
        "signatures": {
            name: [list(one.inputs), list(one.outputs), one.method_name]
            for name, one in definitions.signature_def.items()
        },
        "no model": refusal(predict, model="nope"),
        "no version": refusal(predict, version=9),
        "no label": refusal(predict, label="nope"),
        "no signature": refusal(predict, signature="nope"),
        "no input": refusal(predict, name="nope"),
        "no output": refusal(predict, outputs=["nope"]),
        "floats": refusal(predict, [[0.5]]),
        "no status": refusal(status, model="nope"),
        "no status of a version": refusal(status, version=9),
        "no metadata field": refusal(metadata, fields=[]),
        "classify": refusal(
            prediction.Classify, classification_pb2.ClassificationRequest(), timeout=30
        ),
        "regress": refusal(prediction.Regress, regression_pb2.RegressionRequest(), timeout=30),
        "multi": refusal(
            prediction.MultiInference, inference_pb2.MultiInferenceRequest(), timeout=30
        ),
        "reload": reload(2, labels={"live": 2}).status.error_code,
        "after reload": predict().model_spec.version.value,
        "label after reload": refusal(predict, label="canary"),
        "bad reload": refusal(reload, 77, labels={"live": 77}),
        "after bad reload": predict().model_spec.version.value,
        "reload back": reload(
            1, 2, labels={"live": 1, "canary": 2, "traffic-20": 2}
        ).status.error_code,
        "back": values(predict(label="live")),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])

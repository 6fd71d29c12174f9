"""TF Serving's messages without TensorFlow."""

import json
import subprocess
import sys

from serving import protos
from serving.protos_derived import derive


def test_the_file_equals_what_the_installed_packages_hold():
    assert json.loads(protos.FILE.read_text()) == derive()


def test_messages_go_there_and_back():
    request = protos.PredictRequest()
    request.model_spec.name = "severity"
    request.model_spec.version.value = 3
    request.inputs["images"].dtype = protos.DT_STRING
    request.inputs["images"].string_val.append(b"\x89PNG")
    again = protos.PredictRequest.FromString(request.SerializeToString())
    assert again == request
    assert again.model_spec.WhichOneof("version_choice") == "version"


def test_error_codes_are_those_of_grpc():
    from grpc import StatusCode

    for name in ("OK", "NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
        assert protos.error_code(name) == StatusCode[name].value[0]


def test_tensorflow_is_not_loaded():
    program = "import sys, serving.protos; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

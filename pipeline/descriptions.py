"""What each node is for, in words, written where a compiled pipeline has room for them.

A UI labels a node with its task's name, which stays the node's id: by it the backends tell why a
run ended (pipeline/backends/interface.py, STOPS). IR 2.1 keeps descriptions of the pipeline, of
inputs and of outputs; the node's own goes to what it puts out, and to the head of the YAML file.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# Node → name in words, and what it does.
NODES: dict[str, tuple[str, str]] = {
    "ImageExampleGen": (
        "Images",
        "Reads the imported dataset, decodes each image once and describes it by numbers.",
    ),
    "StatisticsGen": ("Statistics", "Counts and describes every feature of every split."),
    "SchemaGen": ("Inferred schema", "Writes down what these data look like, as a schema."),
    "CuratedSchema": ("Schema", "Brings the contract that the data are held against."),
    "ExampleValidator": ("Data validation", "Holds the statistics against the schema."),
    "AnomalyGate": ("Contract check", "Decides whether the anomalies found may be trained on."),
    "LeakageCheck": (
        "Leak check",
        "Looks for people, and for images alike, on both sides of the split.",
    ),
    "DriftGate": ("Drift check", "Compares new images with those of before, person by person."),
    "DataView": ("Data in pictures", "Shows statistics and data checks, before anything stops."),
    "StopOnBadData": ("Stop on bad data", "Fails only if a gate on the data refused them."),
    "Pretrainer": ("Pretraining", "Trains the encoder on images without labels, by SimCLR."),
    "Checkpoint": ("Checkpoint", "Brings an encoder that was trained before."),
    "Teacher": ("Teacher", "Fine-tunes the encoder on labelled images."),
    "Student": ("Student", "Distils the teacher into the small network that is served."),
    "ShuffleControl": (
        "Label-shuffle control",
        "Trains once more on labels that mean nothing, which must teach nothing.",
    ),
    "LiveModel": ("Live version", "Brings the registry's live model, as the baseline."),
    "ServingCheck": ("Serving check", "Tries the student as a server would load it."),
    "Predictor": ("Predictions", "Asks all models about people whom they have never seen."),
    "Evaluator": ("Evaluation", "Measures student and baseline by TFMA, in all and by group."),
    "ModelGate": (
        "Model gate",
        "Decides by interval bounds: passed, refused, or insufficient evidence.",
    ),
    "RunView": (
        "Run in pictures",
        "Shows metrics, ROC curves, confusion matrix, report and model card.",
    ),
    "StopOnRefusal": ("Stop on refusal", "Fails only if the model gate refused the student."),
    "StopOnInsufficientEvidence": (
        "Stop on insufficient evidence",
        "Fails only if there are too few people to tell.",
    ),
    "RegistryPusher": ("Push", "Puts the student into the model registry as its next version."),
}
PARAMETERS = {
    "dataset": "Folder or address of the imported dataset.",
    "registry": "Folder or address of the model registry.",
    "model_name": "Name of the model in the registry.",
    "baseline_version": "Version to compare with; empty: the live one.",
    "checkpoint": "Folder or address of the encoder to start from.",
    "checkpoint_root": "Where trainings keep their state, to go on after a stop; empty: nowhere.",
    "touches": "Record of who was judged by which test people; empty: none.",
}
STAGES = {"pretrain": "Pretraining", "teacher": "Teacher", "student": "Student"}
PIPELINE = (
    "Severity of dementia from MRI slices: SimCLR pretraining, LARS fine-tuning, distillation, and "
    "gates on data and model before anything goes live. Research use only, not for diagnosis."
)


def describe(spec: dict[str, Any]) -> None:
    """Writes descriptions into a compiled pipeline where it has none; names stay as they are.

    Args:
        spec: PipelineSpec 2.1, changed in place.
    """
    spec["pipelineInfo"].setdefault("description", PIPELINE)
    for name, parameter in _parameters(spec):
        if told := _of_parameter(name):
            parameter.setdefault("description", told)
    for node, task in spec["root"]["dag"]["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        made = component.get("outputDefinitions", {}).get("artifacts", {})
        if node in NODES:
            name, does = NODES[node]
            for artifact in made.values():
                artifact.setdefault("description", f"{name}. {does}")


def heading(spec: Mapping[str, Any]) -> str:
    """The nodes of a compiled pipeline in words, as comments for the head of its YAML file."""
    tasks = spec["root"]["dag"]["tasks"]
    known = [node for node in NODES if node in tasks]
    lines = ["# Nodes:", *(f"#   {node}: {NODES[node][1]}" for node in known)]
    return "\n".join(lines) + "\n"


def _parameters(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()


def _of_parameter(name: str) -> str:
    if name in PARAMETERS:
        return PARAMETERS[name]
    stage, _, knob = name.partition("_")
    return f"{STAGES[stage]}: {knob.replace('_', ' ')}." if stage in STAGES and knob else ""

"""The parts of a model card in prose: what the model is, its use, its limits."""

from collections.abc import Iterator
from typing import Any

from components.report.document import Block, Text, bullets
from components.report.evidence import Evidence
from components.report.judgement import Judgement
from schema.features import ALZHEIMER_CLASSES

PHANTOM = "phantom"


def details(evidence: Evidence) -> Iterator[Block]:
    """Model details, from the settings of the run."""
    config = evidence.config
    student, teacher = config.get("student") or {}, config.get("teacher") or {}
    if not student:
        yield Text("The settings were not recorded.")
        return
    calibrated = evidence.calibrations.get("student")
    kind = "phantom" if drawn(evidence) else "brain-MRI"
    yield bullets(
        [
            f"An image classifier: one two-dimensional {kind} slice in, one probability per class "
            "out. A person's answer is the mean over their slices.",
            _seen(student.get("input") or {}),
            _network(student),
            _teacher(teacher),
            _start(config),
            _chosen(student),
            f"Its logits are divided by {calibrated.temperature:.3g}, fitted on validation people."
            if calibrated and calibrated.temperature != 1
            else "Its probabilities are not calibrated.",
            "Owner, contact, licence of the weights: fill in.",
        ]
    )


def _seen(seen: dict[str, Any]) -> str | None:
    if "image_size" not in seen:
        return None
    size, channels = seen["image_size"], seen.get("channels", 1)
    return (
        f"Input: {size} × {size} pixels, {channels} channel{'s' if channels != 1 else ''}, scaled "
        "to [0, 1]; prepared alike in training and at prediction, inside the exported graph."
    )


def _network(student: dict[str, Any]) -> str:
    kind = "the teacher's own network, trained anew"
    if student.get("network", "cnn") == "cnn":
        filters = ", ".join(map(str, student.get("filters") or ()))
        kind = f"a small convolutional network (filters {filters})" if filters else "a small CNN"
    epochs = f", at most {student['epochs']} epochs" if "epochs" in student else ""
    return f"Student, the model of this card: {kind}, distilled from the teacher{epochs}."


def _teacher(teacher: dict[str, Any]) -> str | None:
    if "epochs" not in teacher:
        return None
    balance = str(teacher.get("imbalance", "none")).replace("_", " ")
    return (
        f"Teacher: a ResNet fine-tuned on labels, at most {teacher['epochs']} epochs; class "
        f"imbalance: {balance}. It is not used at prediction."
    )


def _start(config: dict[str, Any]) -> str:
    pretrain = config.get("pretrain")
    if pretrain:
        depth = (pretrain.get("backbone") or {}).get("depth", "")
        return (
            f"The teacher starts from SimCLR pretraining without labels (ResNet-{depth}, "
            f"{pretrain.get('epochs', '?')} epochs) on training people and unlabelled images only."
        )
    if config.get("checkpoint"):
        return f"The teacher starts from a checkpoint: {config['checkpoint']}."
    return "The teacher starts from random weights."


def _chosen(student: dict[str, Any]) -> str:
    least = student.get("min_people_to_choose")
    fewer = f"; with fewer than {least} of them the last epoch is kept" if least else ""
    return f"The epoch is chosen on validation people{fewer}. Test people choose nothing."


def use() -> Iterator[Block]:
    """Intended use and what it is not for."""
    yield Text("Research use only, not for diagnosis.", strong=True)
    yield bullets(
        [
            "Intended: research on learning methods and on honest evaluation; teaching; testing of "
            "pipelines. Users: people who can read the numbers below.",
            "Out of scope: diagnosis, screening, triage, prognosis, treatment, or any decision "
            "about a person; enrolment of people in trials; insurance and employment.",
            "Out of scope: images unlike those it was tested on (other scanners, sequences, "
            "planes, ages, diseases, body parts), whole volumes, photographs of screens.",
            "It has no approval as a medical device anywhere.",
        ]
    )


def drawn(evidence: Evidence) -> bool:
    """Whether the images are phantoms."""
    return (evidence.config.get("data") or {}).get("source") == PHANTOM


def ethics(evidence: Evidence) -> Iterator[Block]:
    """Ethical considerations."""
    if drawn(evidence):
        yield bullets(
            [
                "The images show nobody: no consent is needed, and no one can be known again.",
                "A model of phantoms must not be the reason for telling a person anything.",
            ]
        )
        return
    yield bullets(
        [
            "Brain images are personal data even without a name. Consent, approval and terms of "
            "use of the data are the user's to hold: fill in.",
            "A wrong label of dementia harms; so does false reassurance. The model must not be the "
            "reason for telling a person anything.",
            "Whether it works equally well for people of different age, sex or origin is unknown "
            "wherever the data do not say who they are of.",
        ]
    )


def limits(evidence: Evidence, judged: Judgement) -> Iterator[Block]:
    """What the numbers do not show, as far as the run can know it."""
    yield bullets([*_of_data(evidence), *_of_numbers(evidence, judged), *_of_checks(evidence)])


def _of_data(evidence: Evidence) -> Iterator[str]:
    dataset = evidence.dataset
    phantoms = drawn(evidence)
    if phantoms:
        yield (
            "The images are computed phantoms, drawn to test the pipeline. Nothing here says "
            "anything about real brains or people."
        )
    else:
        yield (
            "Age, sex, education, medication and other diagnoses are not in the data, so no number "
            "is adjusted for them; age alone widens the ventricles."
        )
    if dataset is not None and not phantoms and set(dataset.classes) == set(ALZHEIMER_CLASSES):
        yield (
            "If these are the public four-class slices (OASIS-1): the slices begin at the basal "
            "ganglia, so the hippocampus is nearly absent; they come from one scanner and one "
            "registration; most severe dementia is two people."
        )
    sites = judged_sites(evidence)
    if sites < 2:
        yield "The data name no more than one site: nothing is known about other scanners."
    yield "No external data were used: the test people come from the same source as the others."
    if dataset is not None and dataset.id_source in ("order", "clusters"):
        yield "Who is who was inferred, not given; a mistake there is a leak that no id shows."
    if dataset is not None and dataset.level == "slice":
        yield "People are not known, so slices of one person may be trained on and tested."


def judged_sites(evidence: Evidence) -> int:
    """How many named sites the gate saw among the test people."""
    details_ = evidence.decision.details if evidence.decision else {}
    sites = (details_.get("subgroups") or {}).get("site") or {}
    return len([name for name in sites if name and name != "unknown"])


def _of_numbers(evidence: Evidence, judged: Judgement) -> Iterator[str]:
    people = sum(judged.people.values())
    if people:
        yield (
            f"{people} test people: the intervals say how little that is, and only for people like "
            "these."
        )
    for name, few in judged.not_evaluable.items():
        yield f"{name} is not evaluable ({few} people), and macro numbers leave it out."
    if judged.touches and judged.touches > 1:
        yield (
            f"{judged.touches} candidates were judged on these test people: the best of several "
            "looks better than it is."
        )
    if evidence.predictions is not None and not judged.intervals:
        yield "No intervals were measured: the numbers are of unknown precision."
    yield "One training run: what another seed would have given is not part of the intervals."


def _of_checks(evidence: Evidence) -> Iterator[str]:
    if evidence.leakage is None:
        yield "The leak check did not run: leaks other than shared ids would go unseen."
    if evidence.drift is None:
        yield "Drift was not measured."
    if evidence.control is None:
        yield "The label-shuffle control did not run."

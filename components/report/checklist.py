"""Where each item of two reporting guidelines is answered, in our own short words.

CLAIM: Checklist for AI in Medical Imaging, 2024 update (Tejani et al., Radiology: AI 6:e240300; its
44 topics in its order, without its numbers). TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378, by
its 27 numbers. This is a help for filling them in, not a replacement of either.
"""

from collections.abc import Mapping

from components.report.evidence import Evidence

FILL = "not answered by a pipeline: fill in"

# (topic, answer). A name in braces is a section of the card; "report: …" one of the report.
CLAIM: tuple[tuple[str, str], ...] = (
    ("Title names the kind of AI", "{model}"),
    ("Structured summary", "{decision}"),
    ("Scientific and clinical background", FILL),
    ("Aims and hypotheses", FILL),
    ("Prospective or retrospective", FILL),
    ("Goal of the study", "{use}"),
    ("Where the data come from", "{data}; sites and dates: fill in"),
    ("Who was included and excluded", "{data} (files set aside); people: fill in"),
    ("Preprocessing", "{model}"),
    ("Selection of a part of the data", "{data}"),
    ("De-identification", FILL),
    ("Missing data", "{data} (files set aside); no clinical variables are used"),
    ("How images were acquired", FILL),
    ("What the reference standard is", "{data}"),
    ("Why this reference standard", FILL),
    ("Who made the reference labels", FILL),
    ("How the test set was labelled", "{data}; by whom: fill in"),
    ("How much raters vary", "n/a: one label per person is given, ratings are not"),
    ("How data were divided", "{data}"),
    ("At which level the parts are disjoint", "{data}, {checks}"),
    ("Sample size and how it was chosen", "{data}, {limits}; planning: fill in"),
    ("The model in detail", "{model}, {lineage}"),
    ("Software", "{lineage}"),
    ("Initial parameters", "{model}"),
    ("Training in detail", "{model}; report: Training, Settings"),
    ("How the final model was chosen", "{model}"),
    ("Ensembling", "n/a: one network answers; its teacher is not used at prediction"),
    ("Metrics of performance", "{metrics}"),
    ("Uncertainty and significance", "{metrics}, {results}"),
    ("Robustness", "{results} (subgroups), {checks} (drift), {refusals}"),
    ("Explainability", "n/a: no saliency maps are made; they are no evidence of what was learnt"),
    ("Test on internal data", "{results}"),
    ("Test on external data", "not done by this run: fill in"),
    ("Trial registration", FILL),
    ("Numbers of people and images, in and out", "{data}"),
    ("Demographics in each part", "{data} (classes only); age, sex, clinical data: fill in"),
    ("Performance on all parts", "{results} (test), {calibration} (validation)"),
    ("Estimates with their precision", "{results}"),
    ("What goes wrong", "report: Confusion, Sample predictions"),
    ("Limitations", "{limits}"),
    ("Implications for practice", "{use}"),
    ("Protocol and further detail", "{lineage}; protocol: fill in"),
    ("Availability of software, model and data", "{lineage}; data and weights: fill in"),
    ("Funding", FILL),
)

TRIPOD: tuple[tuple[str, str], ...] = (
    ("1 Title", "{model}"),
    ("2 Abstract", "{decision}"),
    ("3 Background: context, purpose, inequalities", "{use}; context and inequalities: fill in"),
    ("4 Objectives", FILL),
    ("5 Data: sources and dates", "{data}; dates: fill in"),
    ("6 Participants: setting, eligibility, treatments", FILL),
    ("7 Data preparation, and its quality", "{data}, {model}, {checks}"),
    ("8 Outcome and how it was assessed", "{data}; assessors: fill in"),
    ("9 Predictors", "{model}: images alone"),
    ("10 Sample size", "{data}, {limits}; planning: fill in"),
    ("11 Missing data", "{data} (files set aside); no clinical variables are used"),
    ("12 Analysis: partition, model, validation, measures", "{data}, {model}, {metrics}"),
    ("13 Class imbalance", "{model}, {calibration}"),
    ("14 Fairness", "{results} (subgroups); age, sex, ethnicity are not in the data: fill in"),
    ("15 Model output, classes and thresholds", "{metrics}"),
    ("16 Training against evaluation data", "{checks} (leaks, drift)"),
    ("17 Ethical approval", FILL),
    ("18 Open science: funding, protocol, data, code", "{lineage} (code); the rest: fill in"),
    ("19 Patient and public involvement", FILL),
    ("20 Participants: flow and characteristics", "{data}; characteristics: fill in"),
    ("21 Numbers in each analysis", "{data}, {results}"),
    ("22 The full model", "{model}, {lineage}; weights are in the registry"),
    ("23 Performance with intervals, and in subgroups", "{results}, {calibration}"),
    ("24 Model updating", "n/a: trained anew by each run; the live version is the baseline"),
    ("25 Interpretation", "{limits}; against other studies: fill in"),
    ("26 Limitations", "{limits}"),
    (
        "27 Use: poor input, users, next steps",
        "{refusals}, {use}; users' training and next steps: fill in",
    ),
)

# What a section can only answer where the run has got so far.
NEEDS = {
    "metrics": lambda evidence: evidence.predictions is not None,
    "results": lambda evidence: evidence.predictions is not None,
    "calibration": lambda evidence: evidence.predictions is not None,
    "refusals": lambda evidence: "student" in evidence.histories,
    "checks": lambda evidence: any(
        (evidence.leakage, evidence.drift, evidence.control, evidence.anomalies)
    ),
    "data": lambda evidence: evidence.dataset is not None,
}


def answered(
    items: tuple[tuple[str, str], ...], evidence: Evidence, names: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Items with where they are answered.

    Args:
        items: `CLAIM` or `TRIPOD`.
        evidence: what the run got to know.
        names: section → how the card calls it.

    Returns:
        (topic, answer); a section that this run could not fill is called so.
    """
    known = {
        key: name if NEEDS.get(key, lambda _: True)(evidence) else f"{name}: not reached"
        for key, name in names.items()
    }
    return tuple((topic, _sentence(answer.format_map(known))) for topic, answer in items)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

"""The training DAG: one function from one config, the same for every runner.

ImageExampleGen ─▶ StatisticsGen ─▶ SchemaGen (first use) or the curated schema
                                └─▶ ExampleValidator ─▶ AnomalyGate
                └─▶ LeakageCheck · DriftGate            all three ─▶ StopOnBadData
Pretrainer (SimCLR) or Checkpoint ─▶ Teacher (LARS fine-tune) ─▶ Student (distillation)
                                └─▶ ShuffleControl (the same tail, labels that mean nothing)
LiveModel ─▶ Evaluator (TFMA) · Predictor ─▶ ModelGate ─▶ StopOnRefusal ─▶
                   ServingCheck (of Student) ─┘           StopOnInsufficientEvidence ─▶ Pusher
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfx.components.example_validator.component import ExampleValidator
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline
from tfx.types import channel
from tfx.types.standard_artifacts import Model

from components.anomaly_gate import AnomalyGate
from components.baseline_evaluator import Evaluator
from components.curated_schema import CuratedSchema
from components.distributed_training import HANDOVER
from components.drift_gate import DriftGate
from components.image_example_gen import ImageExampleGen
from components.leakage_check import LeakageCheck
from components.live_model import LiveModel
from components.model_gate import ModelGate
from components.predictor import Predictor
from components.registry_pusher import RegistryPusher
from components.serving_check import ServingCheck
from components.shuffle_control import ShuffleControl
from components.stage_trainer import StageTrainer
from components.stop_on_bad_data import StopOnBadData
from components.stop_on_refusal import StopOnInsufficientEvidence, StopOnRefusal
from pipeline.config import PipelineConfig
from pipeline.facts import Facts
from pipeline.tfma import eval_config
from schema.features import SPLITS, UNLABELLED_SPLIT
from trainer.config import StageSettings

Text = str | RuntimeParameter
TRAIN, VAL, TEST = SPLITS


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run is given besides its config: places, and facts of the dataset.

    A compiled pipeline has runtime parameters in the place of texts, and of knobs.

    Attributes:
        dataset: folder of spans that `ingest` wrote, or its address.
        facts: what the dataset is.
        registry: folder or address of the model registry.
        model_name: under which the model is registered.
        touches: folder of the record of who judged which candidate; "" keeps none.
        checkpoints: folder for resumable training state, equal for all attempts of a run.
        schema_text: curated schema as text, or None to infer one from this data.
        checkpoint: encoder to start from instead of a Pretrainer, or None.
        checkpoint_digest: hash of its weights; the importer's cache knows its path alone.
        live_version: what to compare with: `number:digest` of what is live when the run starts, so
            that a promote makes LiveModel run again; "": what is live when LiveModel runs.
        fingerprint: hash of the records, for the cache.
        data_code: hash of the code that describes images; edited code must not be answered from
            the cache, which knows settings and inputs alone.
        training_code: likewise, of the code that trains.
        judging_code: likewise, of the code that predicts and decides.
        serving_code: likewise, of the code that tries models out.
        knobs: settings of stages by `STAGE_KNOB`, such as `teacher_epochs`, that override the
            config's (trainer/knobs.py).
        handovers: trainer node → its distributed job (pipeline/distributed.py), of those that have
            several workers.
    """

    dataset: Text
    facts: Facts
    registry: Text
    model_name: Text
    touches: Text
    checkpoints: Text
    schema_text: str | None
    checkpoint: Text | None = None
    checkpoint_digest: str = ""
    live_version: Text = ""
    fingerprint: str = ""
    data_code: str = ""
    training_code: str = ""
    judging_code: str = ""
    serving_code: str = ""
    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    handovers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def create_training_pipeline(
    config: PipelineConfig,
    inputs: Inputs,
    *,
    pipeline_root: str,
    metadata_connection_config=None,
) -> Pipeline:
    """Builds the DAG. Touches no file and no network.

    Args:
        config: every setting of the run.
        inputs: places, and facts of the dataset.
        pipeline_root: where artifacts are written.
        metadata_connection_config: MLMD connection of a local run; None for a cluster.

    Returns:
        A TFX pipeline for any runner.
    """
    nodes = _data_nodes(config, inputs)
    examples = nodes[0].outputs["examples"]
    stop = nodes[-1]
    stages = _stage_nodes(config, inputs, examples)
    stages[0].add_upstream_node(stop)
    nodes += stages
    control = _control_node(config, inputs, examples, stages)
    if control is not None:
        control.add_upstream_node(stop)
        nodes.append(control)
    [leakage] = [node for node in nodes if node.id == "LeakageCheck"]
    nodes += _judging_nodes(config, inputs, examples, stages, leakage, control)
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=metadata_connection_config,
        beam_pipeline_args=list(config.beam_args),
    )


def _data_nodes(config: PipelineConfig, inputs: Inputs) -> list[BaseNode]:
    """Examples, their statistics, their contract, and what must be true of them, last the stop."""
    examples = ImageExampleGen(
        inputs.dataset,
        inputs.facts.to_json(),
        config.data.spans,
        inputs.fingerprint,
        inputs.data_code,
    )
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    inferred = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    nodes = [examples, statistics, inferred]
    contract = inferred
    if inputs.schema_text is not None:
        contract = CuratedSchema(text=inputs.schema_text)
        nodes.append(contract)
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=contract.outputs["schema"]
    )
    anomalies = AnomalyGate(anomalies=validator.outputs["anomalies"], code=inputs.judging_code)
    leakage = LeakageCheck(
        examples=examples.outputs["examples"],
        splits=",".join(inputs.facts.splits),
        settings=config.leakage.model_dump_json(),
        code=inputs.judging_code,
    )
    drift = DriftGate(
        examples=examples.outputs["examples"],
        schema=contract.outputs["schema"],
        dataset=inputs.dataset,
        classes=",".join(inputs.facts.classes),
        leaked=int(inputs.facts.leaked),
        settings=config.drift.model_dump_json(),
        code=inputs.judging_code,
    )
    stop = StopOnBadData(
        anomalies=anomalies.outputs["decision"],
        leakage=leakage.outputs["decision"],
        drift=drift.outputs["decision"],
        leaked=int(inputs.facts.leaked),
    )
    return [*nodes, validator, anomalies, leakage, drift, stop]


def _stage_nodes(
    config: PipelineConfig, inputs: Inputs, examples: channel.Channel
) -> list[BaseNode]:
    """Pretrainer or Checkpoint (or neither), Teacher, Student, each on top of the one before."""
    unlabelled = [split for split in inputs.facts.splits if split == UNLABELLED_SPLIT]
    plan: list[tuple[str, str, StageSettings | None, list[str]]] = [
        ("Pretrainer", "pretrain", config.pretrain, [TRAIN, *unlabelled]),
        ("Teacher", "teacher", config.teacher, [TRAIN]),
        ("Student", "student", config.student, [TRAIN, *unlabelled]),
    ]
    nodes: list[BaseNode] = []
    base: dict[str, channel.Channel] = {}
    if inputs.checkpoint is not None:
        importer = Importer(source_uri=inputs.checkpoint, artifact_type=Model)
        nodes.append(importer.with_id("Checkpoint"))
        base = {"base_model": importer.outputs["result"]}
    for node_id, name, settings, splits in plan:
        if settings is None:
            continue
        handover = inputs.handovers.get(node_id)
        node = StageTrainer(
            examples,
            train_splits=splits,
            eval_splits=[VAL],
            custom_config={
                "stage": settings.model_dump_json(),
                "classes": json.dumps(inputs.facts.classes),
                "severity": json.dumps(inputs.facts.severity),
                "code_digest": inputs.training_code,
                "checkpoint_digest": inputs.checkpoint_digest,
                **({} if handover is None else {HANDOVER: handover}),
            },
            parameters={"checkpoint_root": inputs.checkpoints, **_knobs(inputs, name)},
            **base,
        ).with_id(node_id)
        base = {"base_model": node.outputs["model"]}
        nodes.append(node)
    return nodes


def _knobs(inputs: Inputs, stage: str) -> dict[str, Any]:
    """The knobs of one stage by their own names."""
    start = f"{stage}_"
    return {n.removeprefix(start): v for n, v in inputs.knobs.items() if n.startswith(start)}


def _control_node(
    config: PipelineConfig, inputs: Inputs, examples: channel.Channel, stages: list[BaseNode]
) -> BaseNode | None:
    """The pipeline's tail once more, from the same encoder, where the config asks for it."""
    if not config.control.shuffle:
        return None
    *before, _, _ = stages
    base = {}
    if before:
        key = "result" if inputs.checkpoint is not None else "model"
        base = {"base_model": before[-1].outputs[key]}
    turned = {n: v for n, v in inputs.knobs.items() if n.startswith(("teacher_", "student_"))}
    return ShuffleControl(
        examples,
        teacher=config.teacher.model_dump_json(),
        student=config.student.model_dump_json(),
        classes=",".join(inputs.facts.classes),
        settings=config.control.model_dump_json(),
        code=f"{inputs.training_code}-{inputs.judging_code}",
        parameters=turned,
        **base,
    )


def _judging_nodes(
    config: PipelineConfig,
    inputs: Inputs,
    examples: channel.Channel,
    stages: list[BaseNode],
    leakage: BaseNode,
    control: BaseNode | None,
) -> list[BaseNode]:
    """Baseline, evaluation, gate, and the push that only a passed gate allows."""
    *_, teacher, student = stages
    place = {"registry": inputs.registry, "model_name": inputs.model_name}
    live = LiveModel(**place, version=inputs.live_version)
    evaluator = Evaluator(
        examples=examples,
        model=student.outputs["model"],
        baseline_model=live.outputs["model"],
        eval_config=eval_config(inputs.facts.classes),
        example_splits=[TEST],
    )
    predictor = Predictor(
        examples=examples,
        student=student.outputs["model"],
        teacher=teacher.outputs["model"],
        live=live.outputs["model"],
        train_split=TRAIN,
        val_split=VAL,
        eval_split=TEST,
        touches=inputs.touches,
        code=inputs.judging_code,
    )
    # The look at these people is on record before anything is known of it.
    evaluator.add_upstream_node(predictor)
    serving = ServingCheck(
        model=student.outputs["model"],
        settings=config.serving.model_dump_json(),
        code=inputs.serving_code,
    )
    # First, so that what it found is on record where the model brings down whoever loads it.
    predictor.add_upstream_node(serving)
    gate = ModelGate(
        predictions_table=predictor.outputs["predictions"],
        evaluation=evaluator.outputs["evaluation"],
        classes=",".join(inputs.facts.classes),
        severity=",".join(inputs.facts.severity or ()),
        settings=config.gate.model_dump_json(),
        leaked=int(inputs.facts.leaked),
        code=inputs.judging_code,
        leakage=leakage.outputs["decision"],
        serving=serving.outputs["decision"],
        **({} if control is None else {"control": control.outputs["decision"]}),
    )
    refusal = StopOnRefusal(decision=gate.outputs["decision"])
    stop = StopOnInsufficientEvidence(decision=gate.outputs["decision"])
    stop.add_upstream_node(refusal)
    pusher = RegistryPusher(
        model=student.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        classes=inputs.facts.classes,
        **place,
    )
    pusher.add_upstream_node(stop)
    return [live, serving, predictor, evaluator, gate, refusal, stop, pusher]

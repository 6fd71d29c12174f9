"""The training DAG: one function from one config, the same for every runner.

ImageExampleGen ─▶ StatisticsGen ─▶ SchemaGen (first use) or the curated schema
                                └─▶ ExampleValidator ─▶ AnomalyGate
                └─▶ LeakageCheck · DriftGate            all three ─▶ StopOnBadData
Pretrainer (SimCLR) or Checkpoint ─▶ Teacher (LARS fine-tune) ─▶ Student (distillation)
                                └─▶ ShuffleControl (the same tail, labels that mean nothing)
LiveModel ─▶ Evaluator (TFMA) · Predictor ─▶ ModelGate ─▶ StopOnRefusal ─▶ Pusher
                   ServingCheck (of Student) ─┘
"""

import dataclasses
import json

from tfx.components.evaluator.component import Evaluator
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2
from tfx.types import channel
from tfx.types.standard_artifacts import Model

from components.anomaly_gate import AnomalyGate
from components.drift_gate import DriftGate
from components.image_example_gen import ImageExampleGen
from components.leakage_check import LeakageCheck
from components.live_model import LiveModel
from components.model_gate import ModelGate
from components.predictor import Predictor
from components.registry_pusher import RegistryPusher
from components.serving_check import ServingCheck
from components.shuffle_control import ShuffleControl
from components.stop_on_bad_data import StopOnBadData
from components.stop_on_refusal import StopOnRefusal
from pipeline.config import PipelineConfig
from pipeline.tfma import eval_config
from schema.features import SPLITS, UNLABELLED_SPLIT
from trainer.config import StageSettings

RUN_FN = "trainer.run_fn.run_fn"
TRAIN, VAL, TEST = SPLITS


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run is given besides its config: places, and facts of the dataset.

    Attributes:
        dataset: folder of spans that `ingest` wrote.
        classes: class names by label.
        severity: class names from least to most severe, or None.
        splits: splits that have images.
        span: pattern of the span folders read; `{SPAN}` in it stands for the newest.
        leaked: the split is known to share subjects.
        schema_file: curated schema, or None to infer one from this data.
        checkpoint: encoder to start from instead of a Pretrainer, or None.
        checkpoint_digest: hash of its weights; the importer's cache knows its path alone.
        checkpoints: folder for resumable training state, equal for all attempts of a run.
        registry: root folder of the model registry.
        touches: folder of the record of who judged which candidate.
        live_version: what is live when the run starts; part of LiveModel's cache key.
        data_code: hash of the code that describes images; edited code must not be answered from
            the cache, which knows settings and inputs alone.
        training_code: likewise, of the code that trains.
        judging_code: likewise, of the code that predicts and decides.
        serving_code: likewise, of the code that tries models out.
    """

    dataset: str
    classes: tuple[str, ...]
    severity: tuple[str, ...] | None
    splits: tuple[str, ...]
    span: str
    leaked: bool
    schema_file: str | None
    checkpoints: str
    registry: str
    touches: str
    checkpoint: str | None = None
    checkpoint_digest: str = ""
    live_version: str = ""
    data_code: str = ""
    training_code: str = ""
    judging_code: str = ""
    serving_code: str = ""


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
    examples = ImageExampleGen(inputs.dataset, inputs.splits, inputs.span, inputs.data_code)
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    inferred = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    nodes = [examples, statistics, inferred]
    contract = inferred
    if inputs.schema_file is not None:
        contract = ImportSchemaGen(schema_file=inputs.schema_file)
        nodes.append(contract)
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=contract.outputs["schema"]
    )
    anomalies = AnomalyGate(anomalies=validator.outputs["anomalies"], code=inputs.judging_code)
    leakage = LeakageCheck(
        examples=examples.outputs["examples"],
        splits=",".join(inputs.splits),
        settings=config.leakage.model_dump_json(),
        code=inputs.judging_code,
    )
    drift = DriftGate(
        examples=examples.outputs["examples"],
        schema=contract.outputs["schema"],
        dataset=inputs.dataset,
        classes=",".join(inputs.classes),
        leaked=int(inputs.leaked),
        settings=config.drift.model_dump_json(),
        code=inputs.judging_code,
    )
    stop = StopOnBadData(
        anomalies=anomalies.outputs["decision"],
        leakage=leakage.outputs["decision"],
        drift=drift.outputs["decision"],
        leaked=int(inputs.leaked),
    )
    return [*nodes, validator, anomalies, leakage, drift, stop]


def _stage_nodes(
    config: PipelineConfig, inputs: Inputs, examples: channel.Channel
) -> list[BaseNode]:
    """Pretrainer or Checkpoint (or neither), Teacher, Student, each on top of the one before."""
    unlabelled = [split for split in inputs.splits if split == UNLABELLED_SPLIT]
    plan: list[tuple[str, StageSettings | None, list[str]]] = [
        ("Pretrainer", config.pretrain, [TRAIN, *unlabelled]),
        ("Teacher", config.teacher, [TRAIN]),
        ("Student", config.student, [TRAIN, *unlabelled]),
    ]
    nodes: list[BaseNode] = []
    base: dict[str, channel.Channel] = {}
    if inputs.checkpoint is not None:
        importer = Importer(source_uri=inputs.checkpoint, artifact_type=Model)
        nodes.append(importer.with_id("Checkpoint"))
        base = {"base_model": importer.outputs["result"]}
    for node_id, settings, splits in plan:
        if settings is None:
            continue
        node = Trainer(
            run_fn=RUN_FN,
            examples=examples,
            train_args=trainer_pb2.TrainArgs(splits=splits),
            eval_args=trainer_pb2.EvalArgs(splits=[VAL]),
            custom_config={
                "stage": settings.model_dump_json(),
                "classes": json.dumps(inputs.classes),
                "severity": json.dumps(inputs.severity),
                "checkpoint_root": inputs.checkpoints,
                "code_digest": inputs.training_code,
                "checkpoint_digest": inputs.checkpoint_digest,
            },
            **base,
        ).with_id(node_id)
        base = {"base_model": node.outputs["model"]}
        nodes.append(node)
    return nodes


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
    return ShuffleControl(
        examples=examples,
        teacher=config.teacher.model_dump_json(),
        student=config.student.model_dump_json(),
        classes=",".join(inputs.classes),
        settings=config.control.model_dump_json(),
        code=f"{inputs.training_code}-{inputs.judging_code}",
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
    place = {"registry": inputs.registry, "model_name": config.model_name}
    live = LiveModel(**place, version=inputs.live_version)
    evaluator = Evaluator(
        examples=examples,
        model=student.outputs["model"],
        baseline_model=live.outputs["model"],
        eval_config=eval_config(inputs.classes),
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
        classes=",".join(inputs.classes),
        severity=",".join(inputs.severity or ()),
        settings=config.gate.model_dump_json(),
        leaked=int(inputs.leaked),
        code=inputs.judging_code,
        leakage=leakage.outputs["decision"],
        serving=serving.outputs["decision"],
        **({} if control is None else {"control": control.outputs["decision"]}),
    )
    stop = StopOnRefusal(decision=gate.outputs["decision"])
    pusher = RegistryPusher(
        model=student.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        classes=inputs.classes,
        **place,
    )
    pusher.add_upstream_node(stop)
    return [live, serving, predictor, evaluator, gate, stop, pusher]

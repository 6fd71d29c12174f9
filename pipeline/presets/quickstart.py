"""The whole pipeline on the built-in phantom `standard`: 240 people × 8 slices of 64 px.

    make quickstart        or        cortexflow run quickstart

Half of the people train, 15 % validate, 35 % (84 people) test. Leak check and drift stand before
the training, the label-shuffle control beside it, and the gate asks the student to match total CSF;
to show that it beats it, some 470 test people are needed. Expect `passed`: a student of about
.86 subject-level macro AUC (floor .70; best possible on this phantom .92) beside .85 for total CSF,
one hand-made number. Measured 2026-11-21 on 2 cores: 2 min 9 s.
Other splits, seeds and orders of the data gave students of .79 to .86.
"""

from evaluation.config import ControlSettings, GateSettings
from pipeline.config import PipelineConfig

CONFIG = PipelineConfig(
    name="quickstart",
    model_name="phantom",
    # On this phantom total CSF is nearly all there is to know: as good is good enough.
    gate=GateSettings(total_csf="match"),
    control=ControlSettings(shuffle=True),
)

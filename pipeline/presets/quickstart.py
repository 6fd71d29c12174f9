"""The whole pipeline on the built-in phantom: 240 people × 8 slices of 64 px.

make quickstart        or        cortexflow run quickstart
"""

from pipeline.config import PipelineConfig

CONFIG = PipelineConfig(name="quickstart")

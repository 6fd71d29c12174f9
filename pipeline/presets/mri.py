"""Real slices: a folder of class folders, a public release, or an imported dataset.

cortexflow run mri --data FOLDER --subject-regex '(subj\\d+)'
"""

from pipeline.config import DataSettings, PipelineConfig

CONFIG = PipelineConfig(name="mri", data=DataSettings(source=None))

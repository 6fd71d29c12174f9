"""A calibrated phantom of axial T1 brain slices with exact ground truth.

One volume per subject, sliced, then acquired at a site. The stage of disease acts through four
latent numbers only (`latents`); everything else is nuisance, so what a classifier can know is
known. Calibrated on the public four-class set: a random split of its slices is pure identity
look-up, a split by subject is hard, and both show here as they do there.

    spec = PhantomSpec(preset="standard", subjects=(45, 45, 45, 45))
    folder = generate(spec, Path("workspace/phantoms"))
"""

from ingest.phantom.cohort import Truth, generate, load_spec, load_truth
from ingest.phantom.layouts import LAYOUTS, LayoutError, export
from ingest.phantom.spec import PRESETS, PhantomSpec, SpecError
from ingest.phantom.subject import Subject, render_subject

__all__ = [
    "LAYOUTS",
    "PRESETS",
    "LayoutError",
    "PhantomSpec",
    "SpecError",
    "Subject",
    "Truth",
    "export",
    "generate",
    "load_spec",
    "load_truth",
    "render_subject",
]

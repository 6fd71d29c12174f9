"""Names of the features that every example carries, and of the classes of the Alzheimer's set.

The first five features are those of existing TFRecords; the rest are ours. See README.md beside
this file for why each is bounded as it is.
"""

IMAGE = "image"  # bytes: one encoded PNG or JPEG slice
LABEL = "label"  # int64: index into the dataset's class names (alphabetical by class folder)
HEIGHT = "height"  # int64: pixels
WIDTH = "width"  # int64: pixels
DEPTH = "depth"  # int64: channels of the encoded image (1 or 3)

SUBJECT_ID = "subject_id"  # bytes: who the slice is of; absent in slice-level data
SLICE_INDEX = "slice_index"  # int64: position of the slice in its stack
SITE = "site"  # bytes: scanner or site; may be absent
SOURCE_SHA256 = "source_sha256"  # bytes: hex digest of the file the slice came from

DESCRIPTOR_PREFIX = "descriptor/"  # float: image descriptors, see schema/descriptors.py

UNLABELLED = -1  # value of LABEL in the `unlabelled` split

SPLITS = ("train", "val", "test")
UNLABELLED_SPLIT = "unlabelled"

# Alphabetical, as in existing TFRecords; severity is an order of its own.
ALZHEIMER_CLASSES = ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")
ALZHEIMER_SEVERITY = ("NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented")

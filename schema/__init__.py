"""The data contract: feature names, class order, image descriptors, and the curated `schema.pbtxt`."""

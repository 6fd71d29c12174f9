"""The data contract: feature names, class order, image descriptors, the curated `schema.pbtxt`."""

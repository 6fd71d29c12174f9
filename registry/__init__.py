"""Versions of models: push, promote, roll back, verify. Loads no TensorFlow."""

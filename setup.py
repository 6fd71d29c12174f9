"""Packaging entry for pip and Beam workers; all metadata lives in pyproject.toml."""

from setuptools import setup

setup()

"""Comparisons of methods on people that no training saw, each a command with a report."""

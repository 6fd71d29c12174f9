"""The run report: evidence as data, one self-contained HTML page from it."""

"""Whether a number may be believed: leaks, intervals, gates, drift, controls. NumPy; no TFX."""

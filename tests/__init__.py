"""A package, because IPython puts a package of the same name on the path when TFX imports it."""

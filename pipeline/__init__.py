"""What runs: one config, presets, the training DAG, the runners, and the record of each run."""

"""Published and own checkpoints: found, downloaded, read, transferred, verified, converted."""

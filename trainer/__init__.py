"""The learning method: backbone, losses, LARS, the three stages, metrics, export. No TFX here."""

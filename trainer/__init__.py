"""The learning method: SimCLRv2 backbone, NT-Xent, LARS, fine-tuning, distillation, export. No TFX here."""

"""One training run: a Ray Train worker loop around a DeepSpeed engine."""

"""From a checkpoint to predictions, metrics and a report."""

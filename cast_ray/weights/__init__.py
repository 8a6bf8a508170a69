"""Checkpoints of other projects, read into our parameter names."""

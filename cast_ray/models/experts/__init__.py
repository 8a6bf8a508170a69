"""Stacks of transformer blocks, each over its own kind of token."""

"""How many values DeepSpeed reduces or gathers at a time; known without deepspeed, for planning."""

from __future__ import annotations

__all__ = ["bucket_size"]

LARGEST_BUCKET = 2**24
"""Values; as float32 they are 67 MB, far more than a network needs for its full speed."""


def bucket_size(trainable: int) -> int:
    """Values in DeepSpeed's buffers for a number of trainable parameters.

    Its default of 5e8 takes 1 GB of every GPU in bf16 before anything is reduced, whatever the network's size
    (DeepSpeed 0.19.8 allocates the whole buffer). An even number, which gathering asks for.
    """
    return min(trainable + trainable % 2, LARGEST_BUCKET)

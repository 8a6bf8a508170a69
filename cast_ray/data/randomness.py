"""Where randomness comes from: one independent generator per (seed, epoch, clip, purpose, view).

Nothing is keyed by worker, rank or time, so that results do not depend on how many workers there are.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

__all__ = ["rng_for"]


def rng_for(seed: int, epoch: int, clip_id: str, purpose: str, view: int = 0) -> np.random.Generator:
    """A generator that is the same in every process and on every machine for the same arguments.

    Args:
        seed: of the run.
        epoch: 0-based.
        clip_id: `Clip.clip_id`, or another name where the purpose is not about one clip.
        purpose: what is drawn ("sample", "crop", "augment" ...); other purposes draw independent numbers.
        view: 0-based, where a clip has several views.
    """
    # JSON keeps the fields apart: no two different argument lists give the same text.
    text = json.dumps([int(seed), int(epoch), clip_id, purpose, int(view)])
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))

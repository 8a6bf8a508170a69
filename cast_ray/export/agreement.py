"""Whether an exported graph gives the numbers of the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cast_ray.errors import UserError
from cast_ray.export.serving import Serving, random_media

__all__ = ["BATCHES", "TOLERANCE", "largest_difference"]

BATCHES = (1, 2, 5)
"""Numbers of clips with which both are run; the graph was traced with 2."""
TOLERANCE = 1e-4
"""Largest difference, in logits, or as a share of the largest logit where that is above 1."""

Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def largest_difference(serving: Serving, run: Run, *, what: str) -> float:
    """The largest difference of two networks' logits on the same noise, for several sizes of batch.

    Args:
        serving: the network.
        run: the graph.
        what: names it in errors.

    Raises:
        UserError: the graph cannot run one of the batches, or the difference is above `TOLERANCE`.
    """
    largest = 0.0
    for clips in BATCHES:
        media = random_media(serving.network.spec, clips, seed=clips)
        with torch.inference_mode():
            expected = serving(**media)
        try:
            found = run(media)
        except Exception as error:  # whatever the runtime raises
            raise UserError(f"{what} fails with {clips} clips: {error}; use --format safetensors") from error
        if found.keys() != expected.keys():
            raise UserError(f"{what} answers {sorted(found)} instead of {sorted(expected)}; use --format safetensors")
        for name, logits in expected.items():
            difference = float((logits - found[name]).abs().max())
            allowed = TOLERANCE * max(1.0, float(logits.abs().max()))
            if not difference <= allowed:  # also where it is no number
                raise UserError(
                    f"{what} differs from the network by {difference:.3g} in {name} with {clips} clips (allowed are "
                    f"{allowed:.3g}), so nothing was written; use --format safetensors"
                )
            largest = max(largest, difference)
    return largest

"""Embeddings of seconds against a literal version of what CA2ST's authors do (their option `time_encoding`)."""

from __future__ import annotations

import pytest
import torch

from cast_ray.models.clock import Clock
from cast_ray.models.experts.expert import TokenLayout
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, VIDEO, VIDEO_TIMES

STEPS, ROWS, COLUMNS, WIDTH = 4, 2, 6, 8
LAYOUTS = {
    "spatial": TokenLayout(steps=STEPS, special=1, grid=(3, 3), width=16),
    "temporal": TokenLayout(steps=STEPS, special=0, grid=(3, 3), width=16),
    "audio": TokenLayout(steps=1, special=2, grid=(ROWS, COLUMNS), width=16),
}
MODALITIES = {"spatial": VIDEO, "temporal": VIDEO, "audio": AUDIO}
TIMES = {
    VIDEO_TIMES: torch.tensor([[[t, t + 0.7] for t in (10.0, 11.0, 12.5, 14.0)], [[t, t + 1.0] for t in range(4)]]),
    AUDIO_TIMES: torch.tensor([[9.5, 14.5], [0.0, 4.0]]),
}


def clock(split, randomise, layouts=LAYOUTS):
    return randomise(Clock(layouts, {name: MODALITIES[name] for name in layouts}, width=WIDTH, split=split))


def literal(parameters, name, start, end):
    """Linear 2 -> R -> R -> R with ReLU after each, and a norm."""
    x = torch.tensor([start, end])
    for layer in (0, 2, 4):
        weight, bias = (parameters[f"embed.{name}.{layer}.{kind}"] for kind in ("weight", "bias"))
        x = torch.stack([(row * x).sum() for row in weight]) + bias
        x = x.clamp(min=0)
    x = (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt()
    return x * parameters[f"embed.{name}.6.weight"] + parameters[f"embed.{name}.6.bias"]


@pytest.mark.parametrize("split", [True, False])
def test_every_patch_carries_its_own_seconds(split, randomise):
    module = clock(split, randomise)
    parameters, added = module.state_dict(), module(TIMES)
    assert added.keys() == LAYOUTS.keys()
    for b in range(2):
        for t in range(STEPS):
            expected = literal(parameters, VIDEO if split else "shared", *TIMES[VIDEO_TIMES][b, t].tolist())
            for name in ("spatial", "temporal"):
                seen = added[name].expand(2, STEPS, 9, WIDTH)[b, t]
                torch.testing.assert_close(seen, expected.expand(9, -1), rtol=1e-4, atol=1e-4)
        start, end = TIMES[AUDIO_TIMES][b].tolist()
        part = (end - start) / STEPS
        for row in range(ROWS):
            for column in range(COLUMNS):
                which = int(column * STEPS / COLUMNS)
                begins = start + which * part
                expected = literal(parameters, AUDIO if split else "shared", begins, begins + part)
                seen = added["audio"].expand(2, 1, ROWS * COLUMNS, WIDTH)[b, 0, row * COLUMNS + column]
                torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)


def test_a_model_without_sound_needs_no_audio_times(randomise):
    seen = {name: LAYOUTS[name] for name in ("spatial", "temporal")}
    module = clock(True, randomise, seen)
    added = module({VIDEO_TIMES: TIMES[VIDEO_TIMES]})
    assert added.keys() == seen.keys()
    assert all(name.startswith("embed.video.") for name in module.state_dict())


def test_weights_in_bf16_take_seconds_in_float32_and_do_not_round_them(randomise):
    """Seconds are not cast with the pixels: bf16 knows 40.0 and 40.25, and nothing between."""
    module = clock(True, randomise).to(torch.bfloat16)
    close = TIMES[AUDIO_TIMES] + 40
    first = module({**TIMES, AUDIO_TIMES: close})["audio"]
    assert first.dtype == torch.bfloat16
    rounded = module({**TIMES, AUDIO_TIMES: close.to(torch.bfloat16).float()})["audio"]
    near = module({**TIMES, AUDIO_TIMES: close + 0.06})["audio"]
    assert torch.isfinite(first).all()
    assert torch.equal((close + 0.06).to(torch.bfloat16), close.to(torch.bfloat16))
    assert not torch.equal(first, near)
    assert torch.equal(first, rounded)

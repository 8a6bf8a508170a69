"""What tests of models share: weights without zeros, and inputs for any network."""

from __future__ import annotations

import pytest
import torch

from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO, VIDEO_TIMES


@pytest.fixture(scope="session")
def randomise():
    """Fills a module with random values, norms, biases and zero starts included, so that no tensor can hide."""

    def fill(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                values = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim > 1:
                    parameter.copy_(values * parameter[0].numel() ** -0.5)
                else:  # around one where it multiplies, as in norms and layer scales
                    parameter.copy_(0.1 * values + float(name.endswith(("weight", "gamma", "scale"))))
        return module

    return fill


@pytest.fixture(scope="session")
def inputs_for():
    """Random inputs that a network of a specification needs; every clip has sound."""

    def make(spec, batch=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        first = 10 * torch.rand(batch, 1, 1, generator=generator)
        step = 0.5 * torch.arange(spec.video.steps)[None, :, None]
        every = {
            VIDEO: torch.randn(batch, *spec.video.shape, generator=generator),
            AUDIO: torch.randn(batch, *spec.audio.shape, generator=generator),
            HAS_AUDIO: torch.ones(batch, dtype=torch.bool),
            VIDEO_TIMES: torch.cat([first + step, first + step + 0.5], dim=2),
            AUDIO_TIMES: torch.cat([first, first + 4], dim=2)[:, 0],
        }
        return {name: every[name] for name in spec.needs}

    return make

"""Networks of one tiny expert, and what foreign models are compared with."""

from __future__ import annotations

import pytest
import torch

from cast_ray.models.assemble import assemble
from cast_ray.models.spec import AudioInput, HeadSpec, NetworkSpec, VideoInput

VIDEO = VideoInput(image_size=32, num_frames=4)
AUDIO = AudioInput(mel_bins=128, frames=136)


@pytest.fixture
def sizes():
    """Of every expert in these tests: 4 x 4 patches of 8 pixels."""
    return {"patch_size": 8, "width": 32, "depth": 2, "num_heads": 2}


@pytest.fixture
def network_of():
    """A function from an expert's specification to a network with that expert alone."""

    def build(expert, role="spatial", *, video=VIDEO, audio=AUDIO):
        torch.manual_seed(0)
        spec = NetworkSpec(experts={role: expert}, head=HeadSpec(adapters="no"), video=video, audio=audio)
        return assemble(spec, {"label": 5}).eval()

    return build


@pytest.fixture
def tokens_of():
    """A function from an expert and its input to the tokens behind the last block."""

    def run(expert, x):
        tokens = expert.embed(x)
        for block in expert.blocks:
            tokens = block(tokens)
        return tokens

    return run


@pytest.fixture
def randomized():
    """A function that gives a foreign model weights of which every one matters."""

    def randomize(model):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return randomize


@pytest.fixture
def clip():
    """Two clips that fit VIDEO."""
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def seen(clip):
    """The images [(B U), 3, H, W] of `clip` that frame-wise experts look at."""
    return clip[:, :, 1::2].transpose(1, 2).flatten(0, 1)

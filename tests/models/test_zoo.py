"""The named models: found by timm, of the published size, and clear about what they do not understand."""

from __future__ import annotations

import pytest
import timm
import torch

import cast_ray.models.zoo  # noqa: F401  (registers the models)
from cast_ray.errors import UserError


@pytest.mark.parametrize("name", ["cast_tiny", "cast_base_patch16_224"])
def test_timm_finds_the_model(name):
    assert timm.is_model(name)
    assert name in timm.list_models("cast_*")


@pytest.mark.parametrize(
    ("num_classes", "trainable", "total"),
    [
        (174, 45_205_038, 217_228_590),
        (400, 45_378_832, 217_402_384),
        ({"verb": 97, "noun": 300}, 44_784_781, 216_808_333),
    ],
)
def test_full_size_has_the_published_number_of_parameters(num_classes, trainable, total):
    with torch.device("meta"):
        network = timm.create_model("cast_base_patch16_224", num_classes=num_classes)
    network.freeze()
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable
    assert sum(p.numel() for p in network.parameters()) == total


def test_every_size_can_be_overridden():
    sizes = {"img_size": 24, "patch_size": 12, "num_frames": 6, "tubelet_size": 3, "width": 48, "depth": 1}
    network = timm.create_model(
        "cast_tiny", num_classes=9, num_heads=3, mlp_ratio=2, down_ratio=4, drop_path_rate=0.1, **sizes
    )
    assert network(torch.randn(1, 3, 6, 24, 24))["label"].shape == (1, 9)
    assert network.get_parameter("experts.spatial.blocks.0.mlp.fc1.weight").shape == (96, 48)
    assert network.get_parameter("exchanges.0.expand.temporal.weight").shape == (48, 12)


def test_drop_path_grows_linearly_with_depth():
    network = timm.create_model("cast_tiny", drop_path_rate=0.3, depth=4)
    for rate, exchange, block in zip(
        (0.0, 0.1, 0.2, 0.3), network.exchanges, network.experts["temporal"].blocks, strict=True
    ):
        assert exchange.drop_path.drop_prob == pytest.approx(rate)
        assert block.drop_path.drop_prob == pytest.approx(rate)


def test_drop_path_acts_in_training_only():
    torch.manual_seed(0)
    network = timm.create_model("cast_tiny", num_classes=4, drop_path_rate=0.9)
    for name, parameter in network.named_parameters():
        if ".expand." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    clip = torch.randn(2, 3, 8, 32, 32)
    assert torch.equal(network.eval()(clip)["label"], network(clip)["label"])
    network.train()
    assert not torch.equal(network(clip)["label"], network(clip)["label"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 33}, "img_size 33 is not a multiple of patch_size 8"),
        ({"num_frames": 7}, "num_frames 7 is not a multiple of tubelet_size 2"),
        ({"num_heads": 5}, "width 64 is not a multiple of num_heads 5"),
        ({"down_ratio": 32}, "down_ratio 32 = 2 is not a multiple of num_heads 4"),
        ({"down_ratio": 3}, "width 64 is not a multiple of down_ratio 3"),
        ({"depth": 0}, "depth is 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
        ({"frames": 8}, r"\['frames'\].*num_frames"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": {"verb": 3}}, r"\['verb'\]"),
        ({"pretrained": True}, "no pretrained weights"),
    ],
)
def test_sizes_that_cannot_be_built_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        timm.create_model("cast_tiny", **options)

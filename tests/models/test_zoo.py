"""The named models as timm finds them: all of them, with sizes and options, and clear about what they do not know."""

from __future__ import annotations

import pytest
import timm
import torch

import cast_ray.models.zoo  # noqa: F401  (registers the models)
from cast_ray.errors import UserError
from cast_ray.models.named import NAMED


def test_timm_finds_every_named_model():
    assert all(timm.is_model(name) for name in NAMED)
    assert {name for name in NAMED if name.startswith("ca2st")} <= set(timm.list_models("ca2st_*"))


def test_sizes_and_options_can_be_given():
    options = {"patch_size": 12, "width": 48, "depth": 1, "num_heads": 3, "mlp_ratio": 2, "down_ratio": 4}
    network = timm.create_model(
        "cast_tiny", num_classes=9, img_size=24, num_frames=6, drop_path_rate=0.1, to_spatial="off", **options
    )
    assert network(torch.randn(1, 3, 6, 24, 24))["label"].shape == (1, 9)
    assert network.get_parameter("experts.spatial.blocks.0.mlp.fc1.weight").shape == (96, 48)
    assert network.get_parameter("exchanges.0.expand.temporal.weight").shape == (48, 12)
    assert [direction.name for direction in network.spec.exchanges[0].directions] == ["spatial_to_temporal"]


def test_number_of_classes_may_be_one_or_by_label_field():
    assert timm.create_model("spatial_tiny").head.classify["label"].out_features == 174
    by_field = timm.create_model("spatial_tiny", num_classes={"verb": 3, "noun": 4}).head.classify
    assert {field: linear.out_features for field, linear in by_field.items()} == {"verb": 3, "noun": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 33}, "image size 33 is not a multiple of patch size 8"),
        ({"num_frames": 7}, "num_frames 7 is not a multiple of frames_per_step 2"),
        ({"num_heads": 5}, "width 64 is not a multiple of num_heads 5"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate is 1\.0"),
        ({"exchange": "bus"}, "exchange is 'bus'; use one of"),
        ({"frames": 8}, r"\['frames'\].*num_frames.*down_ratio"),
        ({"num_classes": 0}, "num_classes"),
        ({"pretrained": True}, "no pretrained weights"),
    ],
)
def test_what_cannot_be_built_is_explained(options, message):
    with pytest.raises(UserError, match=message):
        timm.create_model("cast_tiny", **options)

"""Every recipe against the published figures, written out here once more."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cast_ray.config import RunConfig
from cast_ray.data.augment import RandAugmentSpec
from cast_ray.data.views import frame_sampling
from cast_ray.errors import UserError
from cast_ray.models.named import NAMED, spec_of, trains_experts
from cast_ray.recipes import RECIPES
from cast_ray.recipes.other_model import with_model
from cast_ray.recipes.small import small
from cast_ray.training.schedule import rates_of_run

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"

# CAST: arXiv 2311.18825, Table 4 and the released scripts; in the order SSV2, K400, EK100.
CAST: dict[str, tuple] = {
    "model.drop_path": (0.3, 0.2, 0.2),
    "data.sampling": ("uniform", "dense", "uniform"),
    "data.stride": (4, 4, 4),
    "augment.flip": (0.0, 0.5, 0.5),
    "augment.crop_area": ((0.08, 1.0),) * 3,
    "augment.crop_ratio": ((0.75, 4 / 3),) * 3,
    "augment.rand_augment": ("rand-m7-n4-mstd0.5-inc1",) * 3,
    "augment.mixup_alpha": (0.8, 0.8, 0.8),
    "augment.mixup_probability": (0.9, 0.5, 0.9),
    "augment.erase": (0.0, 0.0, 0.0),
    "augment.cutmix_alpha": (0.0, 0.0, 0.0),
    "augment.repeats": (1, 1, 1),
    "batch.micro_batch": (6, 6, 6),
    "batch.global_batch": (384, 576, 384),
    "optim.kind": ("adamw",) * 3,
    "optim.base_lr": (1e-3, 1e-3, 1e-3),
    "optim.min_lr": (1e-6, 1e-6, 1e-6),
    "optim.schedule": ("cosine",) * 3,
    "optim.warmup_epochs": (5, 5, 5),
    "optim.epochs": (50, 70, 50),
    "optim.layer_decay": (0.75, 0.75, 0.75),
    "optim.weight_decay": (0.05, 0.05, 0.05),
    "optim.betas": ((0.9, 0.999),) * 3,
    "optim.label_smoothing": (0.1, 0.1, 0.1),
    "optim.clip_grad": (0, 0, 0),
    "scale.num_workers": (16, 16, 16),
    "test.temporal_views": (2, 5, 2),
    "test.spatial_crops": (3, 3, 3),
}
CAST_NAMES = ("ssv2", "k400", "ek100")

# CA2ST's development repository: arguments of the notebook, and sampling by dataset.
SOUND: dict[str, Any] = {
    "optim.base_lr": 5e-4,
    "optim.layer_decay": 0.8,
    "optim.weight_decay": 0.05,
    "optim.epochs": 50,
    "optim.warmup_epochs": 5,
    "batch.micro_batch": 6,
    "model.drop_path": 0.2,
    "augment.mixup_probability": 0.9,
    "augment.cutmix_alpha": 0.0,
    "audio.mixing": "cutmix",
    "audio.time_masks": 2,
    "audio.time_mask_columns": 70,
    "audio.frequency_masks": 2,
    "audio.frequency_mask_bins": 20,
    "test.temporal_views": 2,
    "test.spatial_crops": 3,
}
SOUND_BY_DATASET: dict[str, dict[str, Any]] = {
    "ek100_sound": {"data.sampling": "uniform", "batch.global_batch": 6 * 16 * 2, "model.options.audio_frames": 400},
    "epic_sounds": {"data.sampling": "uniform", "batch.global_batch": 6 * 16 * 4, "model.options.audio_frames": 400},
    "vggsound": {"data.sampling": "dense", "data.stride": 4, "model.options.audio_frames": 1024},
    "kinetics_sound": {"data.sampling": "dense", "data.stride": 4},
    "ucf101": {"data.sampling": "dense", "data.stride": 4},
}

# MSCA: tamaki-lab/MSCA and VideoNetworks/TokShift-Transformer.
MSCA: dict[str, Any] = {
    "model.name": "msca_kv_base_patch16_224",
    "model.drop_path": 0.0,
    "data.sampling": "dense",
    "data.stride": 32,
    "augment.flip": 0.5,
    "augment.rand_augment": None,
    "augment.mixup_alpha": 0.0,
    "augment.erase": 0.0,
    "optim.kind": "sgd",
    "optim.momentum": 0.9,
    "optim.weight_decay": 0.0,
    "optim.warmup_epochs": 0,
    "optim.epochs": 18,
    "optim.schedule": "steps",
    "optim.drop_epochs": (10, 15),
    "optim.drop_factor": 0.1,
    "optim.layer_decay": 1.0,
    "optim.label_smoothing": 0.1,
    "optim.clip_grad": 1.0,
    "batch.micro_batch": 21,
    "batch.global_batch": 420,
    "scale.num_workers": 2,
    "test.temporal_views": 10,
    "test.spatial_crops": 3,
    "test.view_mean": "logits",
}

PUBLISHED: list[tuple[str, str, Any]] = [
    *((name, key, values[i]) for i, name in enumerate(CAST_NAMES) for key, values in CAST.items()),
    *((name, key, value) for name, own in SOUND_BY_DATASET.items() for key, value in (SOUND | own).items()),
    *(("msca", key, value) for key, value in MSCA.items()),
]


def setting(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(("recipe", "key", "value"), PUBLISHED, ids=[f"{name}-{key}" for name, key, _ in PUBLISHED])
def test_every_figure_is_the_published_one(recipe: str, key: str, value: Any):
    assert setting(RECIPES[recipe](), key) == value


@pytest.mark.parametrize(
    ("recipe", "accumulation", "peak", "last"),
    [
        ("ssv2", 4, 1.5e-3, 1.5e-6),
        ("ek100", 4, 1.5e-3, 1.5e-6),
        ("k400", 6, 2.25e-3, 2.25e-6),
        ("vggsound", 2, 0.375e-3, 0.75e-6),
        ("epic_sounds", 4, 0.75e-3, 1.5e-6),
        ("msca", 10, 0.1, 0.0),
    ],
)
def test_the_published_passes_per_update_and_learning_rates(recipe, accumulation, peak, last):
    config = RECIPES[recipe]()
    assert config.batch.accumulation(config.scale.num_workers) == accumulation
    assert config.optim.peak_lr(config.batch.global_batch) == pytest.approx(peak)
    assert config.optim.last_lr(config.batch.global_batch) == pytest.approx(last)


@pytest.mark.parametrize(
    ("recipe", "num_frames", "stride", "mean"),
    [*((name, 16, 4, 0.485) for name in ("ssv2", "k400", "ek100", "vggsound")), ("msca", 8, 32, 0.5)],
)
def test_the_models_own_frames_are_the_published_ones(recipe, num_frames, stride, mean):
    config = RECIPES[recipe]()
    sampling = frame_sampling(config)
    assert (sampling.num_frames, sampling.stride, sampling.size) == (num_frames, stride, 224)
    assert spec_of(config.model).video.mean[0] == mean


def test_mscas_rate_is_a_tenth_then_a_hundredth_then_a_thousandth():
    config = RECIPES["msca"]()
    rates = rates_of_run(config.optim, global_batch=420, steps_per_epoch=3)
    np.testing.assert_allclose(rates, [0.1] * 30 + [0.01] * 15 + [0.001] * 9, rtol=1e-12)


def test_msca_trains_the_whole_network_and_the_others_only_what_is_new():
    trained = {name for name, recipe in RECIPES.items() if trains_experts(recipe().model)}
    assert trained == {"msca", "toy"}


def test_rand_augment_has_strength_7_with_deviation_a_half_and_four_operations():
    spec = RandAugmentSpec.parse(RECIPES["ssv2"]().augment.rand_augment)
    assert (spec.magnitude, spec.layers, spec.magnitude_std, spec.probability) == (7, 4, 0.5, 0.5)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_a_network_spec_and_leaves_the_experts_weights_to_the_user(name):
    config = RECIPES[name]()
    assert config.model.name in NAMED
    assert spec_of(config.model).experts
    assert config.weights.given() == {}
    assert config == RunConfig.from_dict(config.to_dict())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_small_form_that_samples_and_flips_as_it_does(name):
    recipe = RECIPES[name]()
    made = small(recipe)
    made.check_experts()
    assert made.scale.num_workers == 2
    assert spec_of(made.model).experts.keys() == spec_of(recipe.model).experts.keys()
    assert (made.data.sampling, made.data.stride, made.augment.flip) == (
        recipe.data.sampling,
        recipe.data.stride,
        recipe.augment.flip,
    )
    assert (made.test.temporal_views, made.test.spatial_crops) == (
        recipe.test.temporal_views,
        recipe.test.spatial_crops,
    )


def test_the_recipes_with_sound_hear_and_the_others_do_not():
    hearing = {name for name, recipe in RECIPES.items() if "audio" in spec_of(recipe().model).experts}
    assert hearing == SOUND_BY_DATASET.keys()


def test_own_clips_are_never_flipped_and_updates_are_small():
    config = RECIPES["custom"]()
    assert (config.augment.flip, config.batch.global_batch) == (0.0, 96)
    for workers in (1, 2, 4, 8, 16):
        assert config.batch.accumulation(workers) * workers == 16


def test_another_batch_keeps_the_recipe_and_scales_the_rate():
    recipe = RECIPES["ssv2"]()
    half = dataclasses.replace(recipe, batch=dataclasses.replace(recipe.batch, global_batch=192))
    assert half.batch.accumulation(16) == 2
    assert half.optim.peak_lr(half.batch.global_batch) == pytest.approx(0.75e-3)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["cast_base_patch16_224", "ca2st_base_patch16_224", "msca_kv_base_patch16_224"])
def test_any_recipe_takes_another_model_with_that_models_frames(recipe, name):
    config = with_model(RECIPES[recipe](), name)
    video = spec_of(config.model).video
    if recipe != "toy":  # its sizes are fixed
        assert (video.num_frames, video.image_size) == (NAMED[name].video.num_frames, 224)
    assert dataclasses.replace(config, model=RECIPES[recipe]().model) == RECIPES[recipe]()


def test_another_model_that_hears_keeps_the_length_of_the_spectrogram():
    assert spec_of(with_model(RECIPES["vggsound"](), "cava_base_patch16_224").model).audio.frames == 1024


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="did you mean cast_base_patch16_224"):
        with_model(RECIPES["ssv2"](), "cast_base_patch16_244")


def test_the_document_lists_every_recipe_and_names_only_flags_that_exist():
    text = DOCUMENT.read_text()
    for name in RECIPES:
        assert f"`{name}`" in text
    fields = set()

    def collect(value: Any, prefix: str) -> None:
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            name = f"{prefix}{field.name.replace('_', '-')}"
            fields.add(f"--{name}")
            if dataclasses.is_dataclass(inner):
                collect(inner, f"{name}.")

    collect(RunConfig(), "")
    named = set(re.findall(r"--(?:[a-z-]+\.)+[a-z-]+", text))
    assert named
    assert named <= fields

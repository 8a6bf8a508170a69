"""The configuration: what it refuses, that it survives storage, and that every field is explained."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray import config as config_module
from cast_ray.config import (
    AudioConfig,
    AugmentConfig,
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
    TestConfig,
    WeightsConfig,
)
from cast_ray.errors import UserError
from cast_ray.models.named import spec_of, trains_experts
from cast_ray.models.options import ModelOptions
from cast_ray.recipes.small import small
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.recipes.toy import toy

REPOSITORY = Path(__file__).parents[1]
CLASSES = [getattr(config_module, name) for name in config_module.__all__]
SHARES = st.floats(0, 1)

CONFIGS = st.builds(
    RunConfig,
    name=st.none() | st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True),
    storage=st.text(min_size=1, max_size=8),
    seed=st.integers(),
    model=st.builds(
        ModelConfig,
        num_frames=st.none() | st.integers(1, 64),
        train_experts=st.sampled_from([None, True, False]),
    ),
    weights=st.builds(WeightsConfig, spatial=st.none() | st.just("random") | st.text(min_size=1)),
    data=st.builds(DataConfig, sampling=st.sampled_from(["uniform", "dense"]), max_unreadable=SHARES),
    augment=st.builds(
        AugmentConfig, crop_area=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)), rand_augment=st.none() | st.text()
    ),
    audio=st.builds(AudioConfig, mixing=st.sampled_from(["linear", "cutmix", "none"]), mask_share=SHARES),
    batch=st.builds(BatchConfig, global_batch=st.integers(1, 8).map(lambda n: 4 * n), micro_batch=st.just(2)),
    optim=st.builds(
        OptimConfig,
        warmup_epochs=st.integers(0, 5) | st.floats(0, 5),
        drop_epochs=st.just((2, 7)),
        label_smoothing=SHARES,
    ),
    scale=st.builds(ScaleConfig, num_workers=st.just(2), zero_stage=st.sampled_from([1, 2])),
    test=st.builds(TestConfig, spatial_crops=st.sampled_from([1, 3])),
)


@given(CONFIGS)
def test_a_stored_configuration_is_the_same_after_reading(config):
    stored = json.dumps(config.to_dict(), allow_nan=False)
    assert RunConfig.from_dict(json.loads(stored)) == config


@pytest.mark.parametrize("recipe", [ssv2(), small(ssv2()), toy()], ids=["ssv2", "small", "toy"])
def test_the_recipes_survive_storage(recipe):
    assert RunConfig.from_dict(recipe.to_dict()) == recipe


def changed(**fields):
    return ssv2().to_dict() | fields


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (changed(colour="red"), 'this version: can not match "colour" to any data class field'),
        (changed(optim={"epochs": "3"}), 'field "optim.epochs" - should be "int" instead of value "3"'),
        (changed(optim={"betas": [0.9]}), 'field "optim.betas"'),
        (changed(scale={"precision": "fp8"}), 'field "scale.precision"'),
        (changed(model=None), 'field "model"'),
        (changed(optim={"epochs": 0}), "optim.epochs is 0"),
    ],
)
def test_a_stored_configuration_of_another_version_is_refused(stored, message):
    with pytest.raises(UserError, match=re.escape(message)):
        RunConfig.from_dict(stored)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (ModelConfig, {"num_frames": 0}, "model.num-frames is 0"),
        (ModelConfig, {"image_size": 0}, "model.image-size is 0; give a number above 0"),
        (ModelConfig, {"drop_path": 1.0}, "model.drop-path is 1.0"),
        (ModelConfig, {"drop_path": -0.1}, "model.drop-path is -0.1"),
        (DataConfig, {"max_unreadable": 1.5}, "data.max-unreadable is 1.5; give a share between 0 and 1"),
        (DataConfig, {"stride": 0}, "data.stride is 0"),
        (DataConfig, {"clips_per_task": 0}, "data.clips-per-task is 0"),
        (DataConfig, {"cpus_per_decode": 0.0}, "data.cpus-per-decode is 0.0"),
        (AugmentConfig, {"crop_area": (0.5, 0.2)}, "augment.crop-area is 0.5 0.2"),
        (AugmentConfig, {"crop_area": (0.0, 1.0)}, "augment.crop-area is 0.0 1.0"),
        (AugmentConfig, {"crop_area": (0.5, 1.1)}, "augment.crop-area is 0.5 1.1"),
        (AugmentConfig, {"crop_ratio": (2.0, 1.0)}, "augment.crop-ratio is 2.0 1.0"),
        (AugmentConfig, {"flip": -0.5}, "augment.flip is -0.5"),
        (AugmentConfig, {"repeats": 0}, "augment.repeats is 0"),
        (AugmentConfig, {"erase": 1.5}, "augment.erase is 1.5; give a share between 0 and 1"),
        (AugmentConfig, {"erase_area": (0.0, 0.3)}, "augment.erase-area is 0.0 0.3; give 0 < smallest"),
        (AugmentConfig, {"erase_area": (0.4, 0.3)}, "augment.erase-area is 0.4 0.3"),
        (AugmentConfig, {"mixup_alpha": -1.0}, "augment.mixup-alpha is -1.0"),
        (AugmentConfig, {"cutmix_alpha": -1.0}, "augment.cutmix-alpha is -1.0; give 0 or more"),
        (AugmentConfig, {"cutmix_switch": 1.5}, "augment.cutmix-switch is 1.5"),
        (AugmentConfig, {"mixup_probability": 2.0}, "augment.mixup-probability is 2.0"),
        (AudioConfig, {"time_masks": -1}, "audio.time-masks is -1; give 0 or more"),
        (AudioConfig, {"time_mask_columns": -1}, "audio.time-mask-columns is -1"),
        (AudioConfig, {"frequency_masks": -1}, "audio.frequency-masks is -1"),
        (AudioConfig, {"frequency_mask_bins": -1}, "audio.frequency-mask-bins is -1"),
        (AudioConfig, {"mask_share": 1.1}, "audio.mask-share is 1.1; give a share between 0 and 1"),
        (BatchConfig, {"global_batch": 0}, "batch.global-batch is 0"),
        (BatchConfig, {"micro_batch": -6}, "batch.micro-batch is -6"),
        (OptimConfig, {"epochs": 0}, "optim.epochs is 0"),
        (OptimConfig, {"base_lr": 0.0}, "optim.base-lr is 0.0"),
        (OptimConfig, {"base_lr": float("nan")}, "optim.base-lr is nan"),
        (OptimConfig, {"min_lr": 0.1}, "optim.min-lr 0.1 is not between 0 and base-lr 0.001"),
        (OptimConfig, {"epochs": 3}, "optim.warmup-epochs 5.0 is more than optim.epochs 3; lower it"),
        (OptimConfig, {"layer_decay": 0.0}, "optim.layer-decay is 0.0"),
        (OptimConfig, {"layer_decay": 1.1}, "optim.layer-decay is 1.1"),
        (OptimConfig, {"weight_decay": -0.1}, "optim.weight-decay is -0.1"),
        (OptimConfig, {"betas": (0.9, 1.0)}, "optim.betas are (0.9, 1.0)"),
        (OptimConfig, {"label_smoothing": 1.2}, "optim.label-smoothing is 1.2"),
        (OptimConfig, {"clip_grad": -1.0}, "optim.clip-grad is -1.0"),
        (OptimConfig, {"momentum": 1.0}, "optim.momentum is 1.0"),
        (OptimConfig, {"drop_factor": 1.0}, "optim.drop-factor is 1.0"),
        (OptimConfig, {"drop_epochs": (15, 10)}, "optim.drop-epochs are (15, 10); give growing numbers from 1"),
        (OptimConfig, {"drop_epochs": (0, 10)}, "optim.drop-epochs are (0, 10)"),
        (OptimConfig, {"schedule": "steps"}, "give --optim.drop-epochs, or --optim.schedule cosine"),
        (ScaleConfig, {"num_workers": 0}, "scale.num-workers is 0"),
        (ScaleConfig, {"cpus_per_worker": 0.0}, "scale.cpus-per-worker is 0.0"),
        (TestConfig, {"temporal_views": 0}, "test.temporal-views is 0"),
        (TestConfig, {"num_workers": 0}, "test.num-workers is 0"),
        (TestConfig, {"clips_per_batch": 0}, "test.clips-per-batch is 0"),
        (RunConfig, {"log_every": 0}, "log-every is 0"),
        (RunConfig, {"validate_every": 0}, "validate-every is 0"),
        (RunConfig, {"keep_checkpoints": 0}, "keep-checkpoints is 0"),
        (RunConfig, {"name": "runs/first"}, "name is 'runs/first'; use a plain folder name"),
        (RunConfig, {"name": ".."}, "name is '..'"),
        (RunConfig, {"name": ""}, "name is ''"),
    ],
)
def test_an_impossible_value_is_refused_with_the_flag_and_the_value(cls, fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        cls(**fields)


@given(st.integers(1, 500), st.integers(1, 9), st.integers(1, 17))
def test_a_batch_divides_or_the_message_names_the_nearest_that_do(global_batch, micro_batch, workers):
    batch = BatchConfig(global_batch=global_batch, micro_batch=micro_batch)
    valid = [micro_batch * workers * passes for passes in range(1, 502)]
    if global_batch in valid:
        assert batch.accumulation(workers) * micro_batch * workers == global_batch
        return
    nearest = [size for size in valid if size < global_batch][-1:] + [size for size in valid if size > global_batch][:1]
    with pytest.raises(UserError) as raised:
        batch.accumulation(workers)
    assert f"use --batch.global-batch {' or '.join(map(str, nearest))}, or another micro batch" in str(raised.value)
    assert f"batch.global-batch {global_batch} does not divide" in str(raised.value)


def test_a_run_refuses_a_batch_that_does_not_divide_among_its_workers():
    with pytest.raises(UserError, match=r"384 does not divide by .* 6 x 5 workers = 30; .* 360 or 390"):
        dataclasses.replace(ssv2(), scale=ScaleConfig(num_workers=5))


def test_the_learning_rate_grows_with_the_global_batch():
    optim = OptimConfig(base_lr=1e-3, min_lr=1e-6)
    assert [optim.peak_lr(size) for size in (256, 512, 64)] == pytest.approx([1e-3, 2e-3, 0.25e-3])
    assert [optim.last_lr(size) for size in (256, 512, 64)] == pytest.approx([1e-6, 2e-6, 0.25e-6])


@pytest.mark.parametrize(
    ("weights", "train_experts", "refused"),
    [
        ({}, False, "weights.spatial"),
        ({"spatial": "clip.pt"}, False, "weights.temporal"),
        ({"temporal": "random"}, False, "weights.spatial"),
        ({"spatial": "clip.pt", "temporal": "random"}, False, None),
        ({}, True, None),
    ],
)
def test_experts_stay_untrained_only_if_the_user_says_so(weights, train_experts, refused):
    config = dataclasses.replace(
        ssv2(), weights=WeightsConfig(**weights), model=ModelConfig(train_experts=train_experts)
    )
    if refused is None:
        config.check_experts()
        return
    with pytest.raises(UserError, match=rf"{refused} is not given .* Give --{refused} FILE"):
        config.check_experts()


def test_weights_of_an_expert_that_the_model_does_not_have_are_refused():
    config = dataclasses.replace(ssv2(), weights=WeightsConfig(spatial="a", temporal="b", audio="ast.pth"))
    with pytest.raises(UserError, match=r"weights.audio is 'ast.pth', but cast_base_patch16_224 has the experts"):
        config.check_experts()
    listening = dataclasses.replace(config, model=ModelConfig(name="ca2st_base_patch16_224"))
    listening.check_experts()


def test_a_model_without_adapters_trains_whole_unless_told_otherwise():
    assert trains_experts(ModelConfig(name="msca_kv_base_patch16_224"))
    assert trains_experts(ModelConfig(name="cast_tiny_late_add"))
    assert not trains_experts(ModelConfig(name="msca_kv_base_patch16_224", train_experts=False))
    assert not trains_experts(ModelConfig(name="cast_tiny"))
    dataclasses.replace(ssv2(), model=ModelConfig(name="framewise_tiny")).check_experts()


def test_sizes_that_are_not_given_are_those_of_the_named_model():
    video = spec_of(ModelConfig(name="msca_kv_base_patch16_224")).video
    assert (video.num_frames, video.image_size, video.mean) == (8, 224, (0.5, 0.5, 0.5))
    video = spec_of(ModelConfig(name="cast_tiny", image_size=48)).video
    assert (video.num_frames, video.image_size, video.mean) == (8, 48, (0.485, 0.456, 0.406))


def test_a_whole_network_stands_for_all_experts_and_not_beside_them():
    dataclasses.replace(ssv2(), weights=WeightsConfig(network="cast.pth")).check_experts()
    with pytest.raises(UserError, match=r"weights.network 'cast.pth' and weights of single experts"):
        WeightsConfig(network="cast.pth", spatial="clip.pt")


def test_options_of_the_model_come_back_from_json():
    options = ModelOptions(down_ratio=4, blocks=(10, 11, 12), to_spatial="off", adapters=False)
    config = dataclasses.replace(ssv2(), model=ModelConfig(options=options))
    assert RunConfig.from_dict(config.to_dict()) == config


def test_only_files_count_as_weights_to_load():
    weights = WeightsConfig(spatial="clip.pt", temporal="random")
    assert weights.sources() == {"spatial": "clip.pt"}
    assert WeightsConfig().sources() == {}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_settings_cannot_change_and_are_given_by_name(cls):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), dataclasses.fields(cls)[0].name, None)
    with pytest.raises(TypeError):
        cls("positional")


def documented_fields(cls: type) -> dict[str, str]:
    """The string below each field of a class, by field."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef))
    docs = {}
    for field, below in itertools.pairwise(body):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and is_text:
            docs[field.target.id] = inspect.cleandoc(below.value.value)
    return docs


@pytest.fixture(scope="module")
def help_text() -> str:
    """What --help prints, on one line and without the frames around it."""
    shown = subprocess.run(
        [sys.executable, REPOSITORY / "jobs" / "train_ssv2.py", "--help"],
        env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return " ".join(re.sub(r"[^\x00-\x7f]", " ", shown).split())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_field_is_explained_in_the_code_and_in_the_help(cls, help_text):
    groups = {field.default_factory: field.name for field in dataclasses.fields(RunConfig)}
    prefix = f"{groups[cls]}." if cls in groups else ""
    docs = documented_fields(cls)
    settings = [field for field in dataclasses.fields(cls) if not dataclasses.is_dataclass(field.default_factory)]
    assert settings
    for field in settings:
        flag = f"--{prefix}{field.name.replace('_', '-')}"
        assert re.search(rf"{re.escape(flag)}[ ,]", help_text), f"{flag} is not in the help"
        assert docs.get(field.name), f"{cls.__name__}.{field.name} has no text below it"
        assert " ".join(docs[field.name].split()) in help_text, f"the help of {flag} does not say what it is"


def test_bf16_without_zero_is_refused_at_once():
    with pytest.raises(UserError, match=r"scale\.zero-stage 0 does not go with scale\.precision bf16"):
        ScaleConfig(precision="bf16", zero_stage=0)
    ScaleConfig(precision="float32", zero_stage=0)


def test_the_folder_of_a_run_keeps_the_options_of_its_storage():
    assert (
        RunConfig(name="first", storage="s3://bucket/runs?scheme=http").folder == "s3://bucket/runs/first?scheme=http"
    )
    assert RunConfig(name="first", storage="/data/runs/").folder == "/data/runs/first"

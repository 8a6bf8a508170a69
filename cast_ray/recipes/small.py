"""Any recipe on a few CPU cores: a tiny network on tiny frames, trained from scratch within minutes."""

from __future__ import annotations

import dataclasses
import re

from cast_ray.config import AugmentConfig, BatchConfig, ModelConfig, OptimConfig, RunConfig, ScaleConfig
from cast_ray.errors import UserError
from cast_ray.models.named import NAMED

__all__ = ["small", "tiny_sibling"]


def tiny_sibling(name: str) -> str:
    """The name of the same model at the size for two CPU cores: cava_base_patch16_224_clock -> cava_tiny_clock.

    Raises:
        UserError: there is none.
    """
    tiny = re.sub(r"_(base|large)_patch\d+_\d+", "_tiny", name)
    if tiny not in NAMED:
        raise UserError(f"'{name}' has no small sibling '{tiny}'; `cast-ray models '*tiny*'` lists the small models")
    return tiny


def small(recipe: RunConfig) -> RunConfig:
    """The same data flow and evaluation as `recipe`, with everything else shrunk to two CPU cores.

    There are no expert weights of this size, so the experts train too, and with a learning rate and augmentation for
    that. Frame sampling, flips and the test views stay those of the recipe.
    """
    return dataclasses.replace(
        recipe,
        model=ModelConfig(
            name=tiny_sibling(recipe.model.name), num_frames=8, image_size=32, drop_path=0.0, train_experts=True
        ),
        data=dataclasses.replace(recipe.data, clips_per_task=64),
        augment=AugmentConfig(
            crop_area=(0.7, 1.0), crop_ratio=(0.9, 1.1), flip=recipe.augment.flip, rand_augment=None, mixup_alpha=0.0
        ),
        batch=BatchConfig(global_batch=32, micro_batch=16),
        optim=OptimConfig(
            epochs=12,
            base_lr=16e-3,
            min_lr=16e-5,
            warmup_epochs=1,
            layer_decay=1.0,
            betas=(0.9, 0.98),
            label_smoothing=0.0,
            clip_grad=1.0,
        ),
        scale=ScaleConfig(
            num_workers=2,
            use_gpu=False,
            cpus_per_worker=0.5,
            precision="float32",
            zero_stage=0,
            start_timeout_s=120,
        ),
        test=dataclasses.replace(recipe.test, clips_per_batch=16),
    )

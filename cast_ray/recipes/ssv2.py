"""Something-Something-V2: the published CAST recipe.

Every figure is that of the paper's Table 4 and of the authors' released code (arXiv 2311.18825); where the two
disagree see docs/deviations.md.
"""

from __future__ import annotations

from cast_ray.config import (
    AugmentConfig,
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
    TestConfig,
)

__all__ = ["ssv2"]


def ssv2() -> RunConfig:
    """2 nodes x 8 GPUs: 6 clips x 16 workers x 4 passes = 384 clips per update, so a peak of 1.5e-3."""
    return RunConfig(
        model=ModelConfig(name="cast_base_patch16_224", num_frames=16, image_size=224, drop_path=0.3),
        data=DataConfig(sampling="uniform"),
        augment=AugmentConfig(
            crop_area=(0.08, 1.0),
            crop_ratio=(0.75, 4 / 3),
            flip=0.0,  # "moving left to right" must stay so
            rand_augment="rand-m7-n4-mstd0.5-inc1",
            mixup_alpha=0.8,
            mixup_probability=0.9,
        ),
        batch=BatchConfig(global_batch=384, micro_batch=6),
        optim=OptimConfig(
            epochs=50,
            base_lr=1e-3,
            min_lr=1e-6,
            warmup_epochs=5,
            layer_decay=0.75,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            label_smoothing=0.1,
        ),
        scale=ScaleConfig(num_workers=16, use_gpu=True, precision="bf16", zero_stage=1),
        test=TestConfig(temporal_views=2, spatial_crops=3),
    )

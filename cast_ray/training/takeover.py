"""How a run begins with the checkpoint of another one, and with other settings than that had.

A run is otherwise never continued with other settings (`cast_ray.training.continuing`). Here a new run is made, in a
folder of its own, and only what can change between two updates of a run may differ.
"""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.configuration import write_configuration
from cast_ray.data.storage import filesystem, retried
from cast_ray.errors import UserError
from cast_ray.training.checkpoint import copy_checkpoint, state_at
from cast_ray.training.continuing import changed_settings
from cast_ray.training.folder import complete_checkpoints, mend_list

__all__ = ["MAY_CHANGE", "take_over"]

MAY_CHANGE = frozenset(
    {
        "optim.base_lr",
        "optim.min_lr",
        "optim.layer_decay",
        "optim.weight_decay",
        "optim.betas",
        "optim.momentum",
        "optim.label_smoothing",
        "optim.clip_grad",
        "model.drop_path",
        "augment.crop_area",
        "augment.crop_ratio",
        "augment.flip",
        "augment.rand_augment",
        "augment.erase",
        "augment.erase_mode",
        "augment.erase_area",
        "augment.mixup_alpha",
        "augment.cutmix_alpha",
        "augment.cutmix_switch",
        "augment.mixup_probability",
        "audio.time_masks",
        "audio.time_mask_columns",
        "audio.frequency_masks",
        "audio.frequency_mask_bins",
        "audio.mask_share",
        "audio.mixing",
    }
)
"""Settings that can differ: none has a part in which weights there are, in what the optimiser keeps of them, or in
which clip comes when."""


def take_over(checkpoint: str, config: RunConfig) -> None:
    """Begin a run with a copy of another run's checkpoint; nothing happens to a run that has begun.

    Weights, optimiser, position and history are the other run's; the settings are those of `config`. If this is
    interrupted, the run has no checkpoint, and the same call does it again.

    Args:
        checkpoint: path or URI of a complete checkpoint's folder; its name is kept.
        config: of the new run, with a name.

    Raises:
        UserError: the settings differ in what must not change; the checkpoint is not there, or the storage stays away.
    """
    folder = config.folder
    storage, root = filesystem(folder)
    if not complete_checkpoints(storage, root):
        source_storage, source = filesystem(checkpoint)
        state = retried(lambda: state_at(source_storage, source), what=checkpoint)
        wrong = [name for name in changed_settings(state.config, config.to_dict()) if name not in MAY_CHANGE]
        if wrong:
            raise UserError(
                f"the run '{config.name}' cannot begin with {checkpoint}: {', '.join(wrong)} cannot change in the "
                "middle of a run; give the settings that the checkpoint was trained with"
            )
        write_configuration(config, folder)
        target = f"{root}/{source.rpartition('/')[2]}"
        retried(lambda: copy_checkpoint((source_storage, source), (storage, target), config.to_dict()), what=checkpoint)
    mend_list(folder)

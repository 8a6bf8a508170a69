"""What the exchanges look at in one clip: its media as the network sees them, its prediction, and all maps.

Shapes: T frames, U time steps, S x S pixels, M mel bins, F columns of 10 ms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cast_ray.data.loader import ClipLoader
from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError
from cast_ray.explain.attention import AttentionMap, by_exchange, recorded_attention
from cast_ray.explain.model import OpenedNetwork, centre_loader
from cast_ray.models.spec import AUDIO, HAS_AUDIO, VIDEO, NetworkSpec

__all__ = ["ClipAttention", "clip_attention", "mean_entropy"]


@dataclass(frozen=True, kw_only=True)
class ClipAttention:
    """One clip, what the model says about it, and where its exchanges look."""

    clip_id: str
    frames: NDArray[np.uint8] | None
    """[T, S, S, 3]; None if the model does not see."""
    step_frames: int
    """Frames of one time step."""
    step_times: NDArray[np.float32] | None
    """[U, 2] first and last second of every time step; None if the frame rate is not known."""
    spectrogram: NDArray[np.float32] | None
    """[M, F] log-mel, normalised; None if the model does not hear, or the clip has no sound."""
    sound_columns: int
    """Columns that are not padding."""
    sound_times: NDArray[np.float32] | None
    """[2] first and last second of the spectrogram, padding included."""
    predicted: Mapping[str, tuple[str, float]]
    """Class name and probability by label field."""
    true: Mapping[str, str] | None
    """Class name by label field; None if not known."""
    silent: bool
    """Whether the model hears and the clip has no sound."""
    maps: Mapping[str, tuple[AttentionMap, ...]]
    """By exchange, block by block: what counts (`AttentionMap.counts`), exchanges with sound only if there is some."""

    @property
    def shown_frames(self) -> NDArray[np.uint8]:
        """[U, S, S, 3] the last frame of every time step, as frame-wise experts see it."""
        if self.frames is None:
            raise ValueError("the model takes no video")
        return self.frames[self.step_frames - 1 :: self.step_frames]

    @property
    def verdict(self) -> str:
        """Prediction and truth in one line."""
        said = []
        for field, (name, probability) in self.predicted.items():
            text = f"{field}: {name} ({probability:.0%})"
            if self.true is not None:
                text += ", right" if self.true[field] == name else f", in truth {self.true[field]}"
            said.append(text)
        return "; ".join(said)


def clip_attention(
    model: OpenedNetwork, dataset: ShardedDataset, row: pa.Table, *, truth_known: bool = True
) -> ClipAttention:
    """Run the model on the centre view of a clip and record where its exchanges look.

    Args:
        model: the network.
        dataset: that the clip is of.
        row: the one index row of the clip.
        truth_known: whether its labels mean something.

    Raises:
        UserError: the clip cannot be read, or the model has no attention between experts.
    """
    loader = _with_times(centre_loader(model.trained, dataset), model.network.spec, fps=row["fps"][0].as_py())
    batch = loader(row)
    clip_id = str(batch["clip_id"][0])
    if not batch["valid"][0]:
        raise UserError(f"clip '{clip_id}' cannot be read: {batch['reason'][0]}; give another")
    with recorded_attention(model.network) as recorded, torch.inference_mode():
        inputs = model.inputs(batch)
        logits = model.network(inputs)
    hears = HAS_AUDIO in inputs and bool(inputs[HAS_AUDIO][0])
    maps = [one for one in recorded if one.counts and (hears or AUDIO not in (one.asks.modality, one.answers.modality))]
    if not maps:
        why = "nothing reads what its exchanges say" if hears or not recorded[0].counts else "the clip has no sound"
        raise UserError(f"there is no attention to show for clip '{clip_id}': {why}; give another clip or model")
    names, labels = model.trained.label_map.names, batch["labels"][0].tolist()
    probabilities = {field: scores[0].float().softmax(-1).cpu() for field, scores in logits.items()}
    return ClipAttention(
        clip_id=clip_id,
        frames=batch["frames"][0] if VIDEO in inputs else None,
        step_frames=model.network.spec.video.frames_per_step,
        step_times=batch["video_times"][0] if "video_times" in batch else None,
        spectrogram=inputs[AUDIO][0].float().cpu().numpy() if hears else None,
        sound_columns=int(batch["audio_columns"][0]) if hears else 0,
        sound_times=batch["audio_times"][0] if hears else None,
        predicted={field: (names[field][int(p.argmax())], float(p.max())) for field, p in probabilities.items()},
        true={field: names[field][label] for field, label in zip(names, labels, strict=True)} if truth_known else None,
        silent=HAS_AUDIO in inputs and not hears,
        maps={name: tuple(group) for name, group in by_exchange(maps).items()},
    )


def mean_entropy(clips: Sequence[ClipAttention]) -> dict[str, list[float | None]]:
    """Entropy of every exchange by block, mean over clips, as a share of the largest.

    The lists begin with block 1 and end with the last block that the exchange counts in; None in a block without it.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for clip in clips:
        for name, maps in clip.maps.items():
            for one in maps:
                found.setdefault(name, {}).setdefault(one.block, []).append(float(one.entropy[0]))
    return {
        name: [float(np.mean(by_block[block])) if block in by_block else None for block in range(1, 1 + max(by_block))]
        for name, by_block in found.items()
    }


def _with_times(loader: ClipLoader, spec: NetworkSpec, *, fps: float) -> ClipLoader:
    """The loader that also tells the seconds of what it loads, where the file says how many frames a second has."""
    wanted = loader.wanted
    steps = spec.video.frames_per_step if wanted.frames and fps > 0 else wanted.frames_per_step
    hears = wanted.sound_columns is not None
    return dataclasses.replace(loader, wanted=dataclasses.replace(wanted, frames_per_step=steps, sound_times=hears))

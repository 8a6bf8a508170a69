"""How a checkpoint, a run or an exported file becomes a model that names what is in a clip.

Shapes: C classes of a label field. What imports timm or Ray is imported late: mistakes are answered before.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from cast_ray.data.loader import Content, wanted_by
from cast_ray.data.storage import absolute, is_local
from cast_ray.data.views import TestViews
from cast_ray.errors import UserError
from cast_ray.evaluation.device import Device, chosen_device
from cast_ray.evaluation.view_mean import mean_over_views
from cast_ray.inference.answer import Prediction, Probabilities
from cast_ray.inference.parts import Loaded, PartLoader
from cast_ray.weights.moved import MovedWeights

if TYPE_CHECKING:
    from cast_ray.evaluation.trained import TrainedModel
    from cast_ray.models.network import Network
    from cast_ray.models.spec import NetworkSpec

__all__ = ["Precision", "Recogniser", "check_views"]

Precision = Literal["float32", "bf16"]


class Recogniser:
    """A trained model, ready to predict. `load` makes one.

    Attributes:
        label_map: class names in the order of the probabilities.
        loader: reads files as the model takes them.
        name: the model's name and what tells this training from others.
    """

    def __init__(self, network: Network, model: TrainedModel, *, time_limit_s: float) -> None:
        from cast_ray.data.inputs import InputMaker

        weight = next(network.parameters())
        self.label_map = model.label_map
        self.name = f"{model.config.model.name} {model.fingerprint}"
        self.loader = PartLoader(view=model.views, wanted=wanted_by(network.spec), time_limit_s=time_limit_s)
        self._view_mean = model.config.test.view_mean
        self._network, self._dtype = network.eval(), weight.dtype
        self._inputs = InputMaker(network.spec, weight.device)

    @classmethod
    def load(
        cls,
        place: str | Path,
        *,
        device: Device = "auto",
        precision: Precision = "float32",
        views: tuple[int, int] | None = None,
        time_limit_s: float = 60.0,
        moved: MovedWeights | None = None,
    ) -> Recogniser:
        """A model from disk or object storage. Nothing in the files is ever executed.

        Args:
            place: as for `cast_ray.evaluation.trained.model_at`.
            device: auto takes a GPU if there is one.
            precision: number format of the network.
            views: how many along time and how many crops (1 or 3) of each clip; None: as in the run's test.
            time_limit_s: see `PartLoader`.
            moved: where the experts' weights are now, if not where the run had them; only for runs and checkpoints.

        Raises:
            UserError: nothing there that can be loaded, weights that are missing or belong to another model, or a
                device that is not there.
        """
        chosen = chosen_device(device)
        if views is not None:
            check_views(views)
        from cast_ray.evaluation.trained import model_at

        model = model_at(place, moved)
        if views is not None:
            test = dataclasses.replace(
                model.config.test, temporal_views=views[0], spatial_crops=3 if views[1] == 3 else 1
            )
            model = model.used(dataclasses.replace(model.config, test=test))
        return cls.of(model, device=chosen, precision=precision, time_limit_s=time_limit_s)

    @classmethod
    def of(
        cls, model: TrainedModel, *, device: torch.device, precision: Precision = "float32", time_limit_s: float
    ) -> Recogniser:
        """The model itself, with the views that its configuration says; `UserError` if its weights cannot be loaded."""
        network = model.load(model.config).to(device, torch.bfloat16 if precision == "bf16" else torch.float32)
        return cls(network, model, time_limit_s=time_limit_s)

    @property
    def spec(self) -> NetworkSpec:
        """What the network is made of."""
        return self._network.spec

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self._network.parameters()).device

    @property
    def views(self) -> TestViews:
        """Which frames and crops of a clip are looked at."""
        return self.loader.view

    def predict(
        self, clip: str | Path | bytes, *, start_s: float | None = None, stop_s: float | None = None
    ) -> Prediction:
        """The answer for a clip.

        Args:
            clip: path or URI of a video file, or the file's content.
            start_s: first second of the part that is meant; None: the beginning.
            stop_s: last second; None: the end.

        Raises:
            UnreadableVideo: the file is no video, is damaged, has no frame in that part, or takes too long.
            UserError: there is no such file.
        """
        if isinstance(clip, bytes):
            with tempfile.NamedTemporaryFile(prefix="clip-") as file:
                file.write(clip)
                file.flush()
                return dataclasses.replace(
                    self.predict(file.name, start_s=start_s, stop_s=stop_s), clip=f"{len(clip):,} bytes"
                )
        uri = absolute(clip)
        if is_local(uri) and "://" not in uri and not os.path.isfile(uri):
            what = "is a folder" if os.path.isdir(uri) else "does not exist"
            raise UserError(f"'{clip}' {what}; give the path or URI of a video file")
        (loaded,) = self.loader(uri, [(start_s, stop_s)])
        return self.answer(loaded, name=str(clip))

    def answer(self, loaded: Loaded, *, name: str) -> Prediction:
        """The answer for a clip that was loaded by `loader`, or by one like it in another process.

        Raises:
            UnreadableVideo: it could not be loaded.
        """
        (probabilities,) = self.probabilities([loaded.usable()])
        return Prediction(
            clip=name,
            label_map=self.label_map,
            probabilities=probabilities,
            views=self.views.views[0],
            seconds=loaded.seconds,
            note=loaded.reason,
        )

    def probabilities(self, contents: Sequence[Content]) -> list[Probabilities]:
        """For each clip, by label field, its probabilities [C], as in the run's test; all in one forward pass.

        Args:
            contents: what `loader` has made of clips; at least one.

        Raises:
            UserError: they are not finite.
        """
        from cast_ray.data.inputs import in_precision

        batch: Mapping[str, Any] = {
            "clip_id": np.array([""] * len(contents), dtype=object),
            **{column: np.stack([content[column] for content in contents]) for column in contents[0]},
        }
        with torch.inference_mode():
            logits = self._network(in_precision(self._inputs.evaluation(batch), self._dtype))
            means = {
                field: mean_over_views(scores, len(contents), self._view_mean)[0].cpu().numpy()
                for field, scores in logits.items()
            }
        if not all(np.isfinite(rows).all() for rows in means.values()):
            raise UserError(
                f"the scores of {self.name} are not finite in {self._dtype}; its training diverged, or the format is "
                "too narrow: use float32, or another checkpoint"
            )
        return [{field: rows[index] for field, rows in means.items()} for index in range(len(contents))]


def check_views(views: tuple[int, int]) -> None:
    """Raise `UserError` if there cannot be so many views along time and so many crops."""
    temporal, crops = views
    if temporal < 1 or crops not in (1, 3):
        raise UserError(f"views are {temporal} x {crops}; give 1 or more along time, and 1 or 3 crops")

"""The embedded dataset: rendered, encoded, labelled video files."""

from cast_ray.data.synthetic.classes import NOUNS, SOUNDS, VERBS
from cast_ray.data.synthetic.dataset import Layout, SyntheticDataset, write_dataset
from cast_ray.data.synthetic.synthesize import synthesize

__all__ = ["NOUNS", "SOUNDS", "VERBS", "Layout", "SyntheticDataset", "synthesize", "write_dataset"]

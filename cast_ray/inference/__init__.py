"""Prediction for people: what a trained model sees in one clip, in a long video, or behind a web page."""

from cast_ray.inference.answer import Prediction
from cast_ray.inference.recogniser import Recogniser

__all__ = ["Prediction", "Recogniser"]

"""The sections of a run's settings; `cast_ray.config` puts them together."""

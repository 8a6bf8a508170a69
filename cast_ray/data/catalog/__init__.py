"""One reader per dataset: official annotation files to a manifest."""

from cast_ray.data.catalog.ek100 import read_ek100
from cast_ray.data.catalog.ssv2 import read_ssv2

__all__ = ["read_ek100", "read_ssv2"]

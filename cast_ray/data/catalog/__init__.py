"""One reader per layout: annotation files to a manifest."""

from cast_ray.data.catalog.activitynet import read_activitynet
from cast_ray.data.catalog.cast_csv import read_cast_csv
from cast_ray.data.catalog.counts import PUBLISHED, check_counts
from cast_ray.data.catalog.ek100 import read_ek100
from cast_ray.data.catalog.epic_sounds import read_epic_sounds, read_hd_epic_sounds
from cast_ray.data.catalog.folders import read_folders
from cast_ray.data.catalog.hd_epic import read_hd_epic
from cast_ray.data.catalog.kinetics import read_kinetics, read_kinetics_sounds
from cast_ray.data.catalog.ssv2 import read_ssv2
from cast_ray.data.catalog.table import read_table
from cast_ray.data.catalog.ucf101 import read_ucf101
from cast_ray.data.catalog.vggsound import read_vggsound

__all__ = [
    "PUBLISHED",
    "check_counts",
    "read_activitynet",
    "read_cast_csv",
    "read_ek100",
    "read_epic_sounds",
    "read_folders",
    "read_hd_epic",
    "read_hd_epic_sounds",
    "read_kinetics",
    "read_kinetics_sounds",
    "read_ssv2",
    "read_table",
    "read_ucf101",
    "read_vggsound",
]

"""Where do sixteen workers of one GPU each go? Submitted by autoscale.py; asks for their places, and frees them."""

from __future__ import annotations

from collections import Counter

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from rich.console import Console

ray.init(log_to_driver=False)
group = placement_group([{"GPU": 1, "CPU": 0.25}] * 16, strategy="PACK")
ray.get(group.ready(), timeout=300)
nodes = placement_group_table(group)["bundles_to_node_id"].values()
Console().print(f"workers per node: {sorted(Counter(nodes).values())}")
remove_placement_group(group)

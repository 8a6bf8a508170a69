"""The command `cast-ray plan`: what a run will need, cost and be limited by, before money is spent."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import BatchConfig, RunConfig
from cast_ray.configuration import read_configuration
from cast_ray.errors import UserError
from cast_ray.planning.gpus import GPUS, GpuName
from cast_ray.planning.rates import Media
from cast_ray.recipes.other_model import with_model

__all__ = ["main"]

DESCRIPTION = """Work out memory, decode cores, storage, network, time and cost of a run, and what limits it.

Nothing is started. Every number comes with its origin: counted, measured, stated by a vendor, published or assumed;
--rates takes reports of `cast-ray bench` instead of assumptions. The exit status is 1 if the run does not fit into the
GPUs' memory. Examples:
cast-ray plan --recipe ssv2 --nodes 2 --gpus-per-node 8 --gpu h200 --cpus-per-node 192 --media jpeg;
cast-ray plan --recipe k400 --gpu a100-40 --batch.micro-batch 12 --rates model.json data.json --price-per-gpu-hour 2.5;
cast-ray plan --recipe custom --train-clips 20000 --validation-clips 2000 --classes 12 --clip-seconds 5 --clip-fps 25"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Flags of `cast-ray plan` beside those of the configuration."""

    recipe: str
    """What the settings start from: a recipe, the folder of a run, or a JSON file; other flags change single ones."""
    nodes: int = 2
    """Machines."""
    gpus_per_node: int = 8
    """GPUs of a machine; there is one training worker on each."""
    gpu: GpuName = "h200"
    """Kind of GPU."""
    cpus_per_node: float | None = None
    """CPU cores of a machine; None: as many as it takes."""
    memory_gb_per_node: float | None = None
    """Main memory of a machine in GB, of which Ray's object store gets 30 %; None: as much as it takes."""
    network_gbit: float = 100.0
    """Gbit/s into a node, and as many out of it."""
    storage_gbyte: float | None = None
    """GB/s that the dataset's storage delivers to all nodes together; None: as many as it takes."""
    media: Media = "original"
    """How the dataset is stored, as --media.video of jobs/prepare_data.py."""
    jpeg_frame_rate: float | None = None
    """With media jpeg: frames per second that are kept; None: all."""
    rates: tuple[Path, ...] = ()
    """Reports of `cast-ray bench model`, `data` and `train --json`, at most one of each."""
    train_clips: int | None = None
    """Clips of the training split, if not those published."""
    validation_clips: int | None = None
    """Clips of the validation split, if not those published."""
    classes: tuple[int, ...] | None = None
    """Classes: one number, or two for verbs and nouns; if not those published."""
    clip_seconds: float | None = None
    """Mean length of a clip, if not about that of the published dataset."""
    clip_fps: float | None = None
    """Frames per second of the source, likewise."""
    price_per_gpu_hour: float | None = None
    """What one GPU costs per hour, in any currency."""
    json: bool = False
    """Print JSON."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        for name in (
            "nodes",
            "gpus_per_node",
            "cpus_per_node",
            "memory_gb_per_node",
            "network_gbit",
            "storage_gbyte",
            "jpeg_frame_rate",
            "price_per_gpu_hour",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}; give a number above 0")
        workers = self.nodes * self.gpus_per_node
        if self.run.scale.num_workers != workers:
            raise UserError(
                f"scale.num-workers is {self.run.scale.num_workers}, but {self.nodes} nodes x {self.gpus_per_node} "
                f"GPUs are {workers}; leave --scale.num-workers away"
            )
        if self.jpeg_frame_rate is not None and self.media != "jpeg":
            raise UserError(f"--jpeg-frame-rate goes with --media jpeg only, not {self.media}; leave it away")


def main(arguments: list[str]) -> int:
    """Run `cast-ray plan ARGUMENTS`; returns the exit status, 1 if the run does not fit into memory.

    Raises:
        UserError: bad input.
    """
    settings = _parse(arguments)

    # Imported late, so that --help and a wrong flag answer at once.
    from cast_ray.planning.datasets import dataset_for
    from cast_ray.planning.memory import remedies
    from cast_ray.planning.plan import Cluster, make_plan
    from cast_ray.planning.rates import data_rates, gpu_rate, read_reports
    from cast_ray.planning.show import Shown, show, to_dict
    from cast_ray.planning.work import work_of

    config, gpu, reports = settings.run, GPUS[settings.gpu], read_reports(settings.rates)
    flops = gpu_rate(
        reports,
        gpu,
        settings.gpu,
        precision=config.scale.precision,
        micro_batch=config.batch.micro_batch,
        checkpointed=config.model.checkpoint_activations,
    )
    dataset = dataset_for(
        settings.recipe,
        train_clips=settings.train_clips,
        validation_clips=settings.validation_clips,
        classes=settings.classes,
        seconds=settings.clip_seconds,
        fps=settings.clip_fps,
    )
    with Console(stderr=True).status("counting the model's work ..."):
        work = work_of(config, dataset)
    data = data_rates(
        reports,
        dataset,
        settings.media,
        frames=work.frames,
        sound=work.sound,
        jpeg_frame_rate=settings.jpeg_frame_rate,
    )
    cluster = Cluster(
        nodes=settings.nodes,
        gpus_per_node=settings.gpus_per_node,
        gpu=gpu,
        cpus_per_node=settings.cpus_per_node,
        memory_per_node=None if settings.memory_gb_per_node is None else settings.memory_gb_per_node * 1e9,
        network=settings.network_gbit * 1e9 / 8,
        storage=None if settings.storage_gbyte is None else settings.storage_gbyte * 1e9,
    )
    plan = make_plan(config, cluster, dataset, work, flops=flops, data=data)
    shown = Shown(
        recipe=settings.recipe,
        gpu_name=settings.gpu,
        media=settings.media,
        config=config,
        cluster=cluster,
        dataset=dataset,
        work=work,
        flops=flops,
        data=data,
        plan=plan,
        price_per_gpu_hour=settings.price_per_gpu_hour,
        remedies=() if plan.memory.fits else remedies(config, work.costs, work.activations, gpu_memory=gpu.memory),
    )
    if settings.json:
        print(json.dumps(to_dict(shown), indent=2))  # noqa: T201
    else:
        show(shown, Console())
    return 0 if plan.memory.fits else 1


def _parse(arguments: list[str]) -> Settings:
    """First the flags that decide what the others change, and those that only together make a valid configuration."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    first.add_argument("--model.name", dest="model")
    first.add_argument("--nodes")
    first.add_argument("--gpus-per-node", dest="gpus")
    first.add_argument("--batch.global-batch", dest="total")
    first.add_argument("--batch.micro-batch", dest="micro")
    choice, _ = first.parse_known_args([_with_dashes(word) for word in arguments])
    config = read_configuration(choice.recipe or "ssv2")
    if choice.model is not None:
        config = with_model(config, choice.model)
    workers = _count(choice.nodes, Settings.nodes) * _count(choice.gpus, Settings.gpus_per_node)
    batch = BatchConfig(
        global_batch=_count(choice.total, config.batch.global_batch),
        micro_batch=_count(choice.micro, config.batch.micro_batch),
    )
    config = dataclasses.replace(config, batch=batch, scale=dataclasses.replace(config.scale, num_workers=workers))
    default = Settings(
        recipe=choice.recipe or tyro.MISSING,
        nodes=_count(choice.nodes, Settings.nodes),
        gpus_per_node=_count(choice.gpus, Settings.gpus_per_node),
        run=config,
    )
    return parse(Settings, default, description=DESCRIPTION, arguments=arguments, program="cast-ray plan")


def _with_dashes(word: str) -> str:
    """--batch.micro_batch as --batch.micro-batch; values stay."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else word


def _count(given: str | None, usual: int) -> int:
    """A positive number; what is none is left for the parser of the whole command line to complain about."""
    return int(given) if given and given.isdecimal() and int(given) > 0 else usual

"""Whether this implementation gives the numbers of a golden file: `cast-ray verify FILE...`.

A golden file holds what the authors' CAST computed in float32 on a CPU (logits, gradient norms, a short fine-tuning
run), or the frames and crops of its test views. Its own rules say how weights and input are made.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cast_ray.data.sampling import dense_test_views, three_crops, uniform_test_views
from cast_ray.errors import UserError
from cast_ray.labels import LABEL
from cast_ray.models.assemble import assemble
from cast_ray.models.groups import parameter_groups
from cast_ray.models.named import NAMED
from cast_ray.models.network import Network
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import VideoInput
from cast_ray.training.schedule import learning_rates
from cast_ray.weights.cast_author import load_author, to_author

__all__ = ["TOLERANCES", "run", "verify_file"]

TOLERANCES: Mapping[str, float] = {
    "logits": 1e-4,
    "grad_norms": 1e-3,
    "loss": 1e-4,
    "finetune_losses": 1e-4,
    "lr_schedule": 1e-6,
}
"""Largest relative difference that two float32 implementations may have."""

MODEL_KEYS = (
    *("config", "seed", "batch", "parameter_rule", "input_rule", "parameters", "logits"),
    *("labels", "loss", "trainable", "grad_l2", "finetune", "group_of"),
)
VIEW_KEYS = ("uniform_test_views", "dense_test_views", "three_crops")
PARAMETER_RULE = re.compile(r"default_rng\(zlib\.crc32\(name\.encode\(\)\) \+ seed\).*\* ([0-9.e-]+) \+ offset")
INPUT_RULE = re.compile(r"default_rng\(seed\)\.standard_normal\(")
DENSE_STRIDE = re.compile(r"stride (\d+)")


def run(paths: Sequence[Path]) -> int:
    """Verify every file and write one JSON object per line to standard output.

    Returns:
        0 if all files are within tolerance, else 1.

    Raises:
        UserError: no file is given, or one of them cannot be read as a golden file.
    """
    if not paths:
        raise UserError("no file is given; name one or more golden files, for example tests/golden/*.json")
    status = 0
    for path in paths:
        result = verify_file(path)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
        status = status if result["within_tolerance"] else 1
    return status


def verify_file(path: Path) -> dict[str, Any]:
    """Compare this implementation with one golden file.

    Returns:
        `file`, `kind`, the differences, `within_tolerance` and `seconds`; ready for JSON.

    Raises:
        UserError: the file is missing, no JSON, of an unknown format, or describes an impossible model.
    """
    started = time.perf_counter()
    golden = _read(path)
    if any(key in golden for key in VIEW_KEYS):
        kind, compare = "test_views", _verify_views
    else:
        kind, compare = "cast", _verify_model
        missing = [key for key in MODEL_KEYS if key not in golden]
        if missing:
            raise UserError(
                f"{path} is no golden file of a known format: it has neither one of {list(VIEW_KEYS)} nor {missing}; "
                "tests/golden holds files of both formats"
            )
    try:
        result = compare(golden, path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path} has the keys of a golden file, but a value is malformed: {error!r}") from error
    # JSON has no infinity or NaN; null says that the two could not be compared.
    result = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in result.items()}
    return {"file": str(path), "kind": kind, **result, "seconds": round(time.perf_counter() - started, 2)}


def _read(path: Path) -> dict[str, Any]:
    try:
        golden = json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"golden file {path} cannot be read: {error.strerror}; check the path") from error
    except ValueError as error:
        raise UserError(f"golden file {path} is not JSON ({error}); give a golden file") from error
    if not isinstance(golden, dict):
        raise UserError(f"golden file {path} holds a {type(golden).__name__}, not an object; give a golden file")
    return golden


def _verify_model(golden: dict[str, Any], path: Path) -> dict[str, Any]:
    network = _build(golden, path)
    clip = _clip(golden, path)
    labels = {field: torch.tensor(values) for field, values in _by_field(golden["labels"]).items()}
    differences = {"logits": _logit_difference(network, clip, _by_field(golden["logits"]))}
    loss = _loss(network.train(), clip, labels)
    loss.backward()
    differences["loss"] = _relative([loss.item()], [golden["loss"]])
    differences["grad_norms"] = _gradient_difference(network, golden["grad_l2"])
    differences |= _finetune_differences(network, clip, labels, golden["finetune"])
    names = _trainable_report(network, golden) | _group_report(network, golden)
    equal = names["trainable_equal"] and names["groups_equal"]
    # Written so that NaN counts as outside.
    within = equal and all(differences[key] <= tolerance for key, tolerance in TOLERANCES.items())
    return {**differences, **names, "within_tolerance": within}


def _by_field(value: Any) -> dict[str, Any]:
    """Golden files write a bare value for one label and a dictionary for verb + noun."""
    return value if isinstance(value, dict) else {LABEL: value}


def _build(golden: dict[str, Any], path: Path) -> Network:
    config = golden["config"]
    options = ModelOptions(
        patch_size=config["patch_size"],
        width=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_ratio=int(config["mlp_ratio"]),
        down_ratio=config["down_ratio"],
    )
    video = VideoInput(
        image_size=config["img_size"], num_frames=config["num_frames"], frames_per_step=config["tubelet_size"]
    )
    spec = replace(vary(NAMED["cast_base_patch16_224"], options), video=video)
    network = assemble(spec, _by_field(config["num_classes"]))
    rule = PARAMETER_RULE.search(golden["parameter_rule"])
    if rule is None:
        raise UserError(f"{path} has an unknown parameter_rule: {golden['parameter_rule']!r}")
    tensors = {
        name: torch.from_numpy(
            (_normal(_seed(name, golden["seed"]), shape) * float(rule[1]) + offset).astype("float32")
        )
        for name, shape, offset in golden["parameters"]
    }
    load_author(network, tensors, where=str(path))
    network.freeze()
    return network


def _seed(name: str, seed: int) -> int:
    return zlib.crc32(name.encode()) + seed


def _normal(seed: int, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _clip(golden: dict[str, Any], path: Path) -> Tensor:
    if INPUT_RULE.search(golden["input_rule"]) is None:
        raise UserError(f"{path} has an unknown input_rule: {golden['input_rule']!r}")
    config = golden["config"]
    shape = (golden["batch"], 3, config["num_frames"], config["img_size"], config["img_size"])
    return torch.from_numpy(_normal(golden["seed"], shape).astype("float32"))


def _relative(ours: Sequence[float], golden: Sequence[float]) -> float:
    """Largest difference, relative to each golden number; those below float32's resolution of the largest are noise."""
    if len(ours) != len(golden):
        return math.inf
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(golden, dtype=np.float64)
    floor = max(float(np.abs(b).max(initial=0)) * float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny))
    return float((np.abs(a - b) / np.maximum(np.abs(b), floor)).max(initial=0))


def _logit_difference(network: Network, clip: Tensor, golden: Mapping[str, Any]) -> float:
    """Largest difference over all fields, relative to the largest logit of the field."""
    with torch.no_grad():
        logits = network.eval()(clip)
    differences = []
    for field, expected in golden.items():
        reference = torch.tensor(expected)
        if logits[field].shape != reference.shape:
            return math.inf
        differences.append(((logits[field] - reference).abs().max() / reference.abs().max()).item())
    return float(np.max(differences))


def _loss(network: Network, clip: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
    logits = network(clip)
    return torch.stack([F.cross_entropy(logits[field], index) for field, index in labels.items()]).sum()


def _author_name(name: str) -> str:
    renamed, _ = to_author({name: torch.empty(0)})
    return next(iter(renamed))


def _gradient_difference(network: Network, golden: Mapping[str, float]) -> float:
    norms = {
        _author_name(name): 0.0 if parameter.grad is None else parameter.grad.norm().item()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    return _relative([norms.get(name, math.nan) for name in golden], list(golden.values()))


def _finetune_differences(
    network: Network, clip: Tensor, labels: Mapping[str, Tensor], finetune: Mapping[str, Any]
) -> dict[str, float]:
    """Repeat the fine-tuning run of the golden file on its one batch."""
    rates = learning_rates(
        steps=finetune["epochs"] * finetune["steps_per_epoch"],
        warmup_steps=finetune["warmup_epochs"] * finetune["steps_per_epoch"],
        peak=finetune["peak_lr"],
        final=finetune["min_lr"],
        start=finetune["warmup_start_lr"],
    )
    groups = parameter_groups(network, _weight_decay(finetune), finetune["layer_decay"])
    optimizer = torch.optim.AdamW(groups, lr=finetune["peak_lr"], betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = float(rate) * group["lr_scale"]
        optimizer.zero_grad()
        loss = _loss(network, clip, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {
        "finetune_losses": _relative(losses, finetune["losses"]),
        "lr_schedule": _relative(list(rates), finetune["lr_per_step"]),
    }


def _weight_decay(finetune: Mapping[str, Any]) -> float:
    return max(group["weight_decay"] for group in finetune["groups"])


def _trainable_report(network: Network, golden: Mapping[str, Any]) -> dict[str, Any]:
    ours = {_author_name(name) for name in network.trainable_names()}
    missing, unexpected = sorted(set(golden["trainable"]) - ours), sorted(ours - set(golden["trainable"]))
    return {
        "trainable_equal": not missing and not unexpected,
        "trainable_missing": missing,
        "trainable_unexpected": unexpected,
    }


def _group_report(network: Network, golden: Mapping[str, Any]) -> dict[str, Any]:
    """Names whose weight decay or learning-rate scale differ, and whether the groups have the same sizes."""
    finetune = golden["finetune"]
    groups = parameter_groups(network, _weight_decay(finetune), finetune["layer_decay"])
    ours = {
        _author_name(name): _rounded(group["weight_decay"], group["lr_scale"])
        for group in groups
        for name in group["names"]
    }
    expected = {name: _rounded(*pair) for name, pair in golden["group_of"].items()}
    differing = sorted(name for name in ours.keys() | expected.keys() if ours.get(name) != expected.get(name))
    our_sizes = sorted(
        (*_rounded(group["weight_decay"], group["lr_scale"]), sum(parameter.numel() for parameter in group["params"]))
        for group in groups
    )
    expected_sizes = sorted((*_rounded(g["weight_decay"], g["lr_scale"]), g["n"]) for g in finetune["groups"])
    return {"groups_equal": not differing and our_sizes == expected_sizes, "groups_differing": differing}


def _rounded(weight_decay: float, lr_scale: float) -> tuple[float, float]:
    """Products of decay factors differ in their last bits with the order of multiplication."""
    return round(weight_decay, 9), float(f"{lr_scale:.9g}")


def _verify_views(golden: dict[str, Any], path: Path) -> dict[str, Any]:
    """Count the videos and frame sizes whose view indices or crop offsets differ, and name them."""
    stride_note = DENSE_STRIDE.search(golden.get("notes", {}).get("dense_test_views", "stride 4"))
    if stride_note is None:
        raise UserError(f"{path}: the note on dense_test_views does not say 'stride <number>'")
    stride = int(stride_note[1])
    differing = []
    for frames, views in golden.get("uniform_test_views", {}).items():
        ours = uniform_test_views(int(frames), len(views[0]), len(views))
        if not np.array_equal(ours, views):
            differing.append(f"uniform_test_views/{frames}")
    for frames, views in golden.get("dense_test_views", {}).items():
        ours = dense_test_views(int(frames), len(views[0]), stride, len(views))
        if not np.array_equal(ours, views):
            differing.append(f"dense_test_views/{frames}")
    for shape, crops in golden.get("three_crops", {}).items():
        height, width = (int(side) for side in shape.split("x"))
        plan = three_crops(height, width, min(crops["resized"]))
        ours_plan = (list(plan.resized), list(plan.offsets), plan.axis)
        if ours_plan != (crops["resized"], crops["offsets"], crops["axis"]):
            differing.append(f"three_crops/{shape}")
    checked = sum(len(golden.get(key, {})) for key in VIEW_KEYS)
    return {"checked": checked, "differing": differing, "within_tolerance": not differing}

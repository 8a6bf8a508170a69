"""`cast-ray verify`: golden files match, other sizes match a literal CAST, and every kind of error is seen.

The literal CAST below is written from the paper's formulas, on tensors in the authors' layout, with loops where the
package uses batched operations. It shares no code with the package and writes golden files of any size.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cast_ray.errors import UserError
from cast_ray.verify import TOLERANCES, run, verify_file

GOLDEN = Path(__file__).parent / "golden"
CLIP = {"img_size": 16, "patch_size": 8, "num_frames": 4, "tubelet_size": 2}
WIDTHS = {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4, "down_ratio": 2}
BASE = {**CLIP, **WIDTHS, "composition": False, "num_classes": 7}
# One epoch of two steps from 0 to the peak, then half a cosine in two steps.
EPOCHS = {"epochs": 2, "steps_per_epoch": 2, "warmup_epochs": 1, "layer_decay": 0.8}
SCHEDULE = {**EPOCHS, "peak_lr": 2e-3, "min_lr": 1e-6, "warmup_start_lr": 0.0}
RATES = [0.0, 2e-3, 2e-3, (2e-3 + 1e-6) / 2]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of tiny operations: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class LiteralCast:
    """CAST of one clip at a time, one window at a time, one head at a time."""

    def __init__(self, tensors, config):
        self.p = tensors
        self.c = config
        self.steps = config["num_frames"] // 2
        self.patches = (config["img_size"] // config["patch_size"]) ** 2

    def linear(self, x, name, bias=None):
        return x @ self.p[f"{name}.weight"].T + self.p[bias or f"{name}.bias"]

    def norm(self, x, name, eps):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def attention(self, q, k, v):
        """[L, D], [M, D], [M, D] to [L, D]."""
        part = q.shape[-1] // self.c["num_heads"]
        heads = []
        for start in range(0, q.shape[-1], part):
            channels = slice(start, start + part)
            heads.append((q[:, channels] @ k[:, channels].T * part**-0.5).softmax(-1) @ v[:, channels])
        return torch.cat(heads, -1)

    def adapter(self, x, name):
        return self.linear(F.gelu(self.linear(x, f"{name}.D_fc1")), f"{name}.D_fc2")

    def embed_spatial(self, clip):
        """[3, T, H, W] to [steps, 1 + patches, D]."""
        size, side = self.c["patch_size"], self.c["img_size"]
        weight = self.p["clip_conv1.weight"].flatten(1)
        steps = []
        for frame in range(1, self.c["num_frames"], 2):
            tokens = [self.p["clip_class_embedding"]]
            for y in range(0, side, size):
                for x in range(0, side, size):
                    tokens.append(weight @ clip[:, frame, y : y + size, x : x + size].flatten())
            steps.append(self.norm(torch.stack(tokens) + self.p["clip_positional_embedding"], "clip_ln_pre", 1e-5))
        return torch.stack(steps)

    def embed_temporal(self, clip):
        """[3, T, H, W] to [steps * patches, D]."""
        size, side, width = self.c["patch_size"], self.c["img_size"], self.c["embed_dim"]
        weight, tokens = self.p["patch_embed.proj.weight"].flatten(1), []
        for t in range(0, self.c["num_frames"], 2):
            for y in range(0, side, size):
                for x in range(0, side, size):
                    tokens.append(weight @ clip[:, t : t + 2, y : y + size, x : x + size].flatten())
        table = [
            [(math.cos if j % 2 else math.sin)(position / 10000 ** (2 * (j // 2) / width)) for j in range(width)]
            for position in range(len(tokens))
        ]
        return torch.stack(tokens) + self.p["patch_embed.proj.bias"] + torch.tensor(table)

    def attend_spatial(self, x, b):
        steps = []
        for step in self.norm(x, f"{b}.clip_ln_1", 1e-5):
            qkv = step @ self.p[f"{b}.clip_attn.in_proj_weight"].T + self.p[f"{b}.clip_attn.in_proj_bias"]
            attended = self.linear(self.attention(*qkv.chunk(3, -1)), f"{b}.clip_attn.out_proj")
            steps.append(attended + self.adapter(attended, f"{b}.S_Adapter"))
        return x + torch.stack(steps)

    def attend_temporal(self, x, b):
        q, k, v = (self.norm(x, f"{b}.norm1", 1e-6) @ self.p[f"{b}.attn.qkv.weight"].T).chunk(3, -1)
        q, v = q + self.p[f"{b}.attn.q_bias"], v + self.p[f"{b}.attn.v_bias"]
        attended = self.linear(self.attention(q, k, v), f"{b}.attn.proj")
        return x + attended + self.adapter(attended, f"{b}.T_Adapter")

    def cross(self, q, kv, q_positions, kv_positions, name, kind):
        """One window: [L, R] queries, [M, R] keys and values."""
        q = self.linear(q + q_positions, f"{name}.{kind}_q", f"{name}.{kind}_q_bias")
        k, v = self.linear(kv + kv_positions, f"{name}.{kind}_kv", f"{name}.{kind}_kv_bias").chunk(2, -1)
        return self.linear(self.attention(q, k, v), f"{name}.t2s_proj")

    def exchange(self, s, t, b):
        ns = self.norm(self.linear(s, f"{b}.cross_s_down"), f"{b}.ln_s_cross", 1e-6)
        nt = self.norm(self.linear(t, f"{b}.cross_t_down"), f"{b}.ln_t_cross", 1e-6)
        nt = nt.view(self.steps, self.patches, -1)
        cls, ns = ns[:, 0], ns[:, 1:]
        name = f"{b}.t2s_cross"
        time = [self.p[f"{name}.clip_time_pos"], self.p[f"{name}.vmae_time_pos"]]
        to_s = [self.cross(ns[:, n], nt[:, n], *time, name, "t2s") for n in range(self.patches)]
        to_s = torch.cat([cls[:, None], torch.stack(to_s, 1)], 1)
        name = f"{b}.s2t_cross"
        space = [self.p[f"{name}.vmae_space_pos"], self.p[f"{name}.clip_space_pos"]]
        to_t = torch.cat([self.cross(nt[u], ns[u], *space, name, "s2t") for u in range(self.steps)])
        s = s + self.linear(F.gelu(to_s), f"{b}.cross_s_up")
        return s, t + self.linear(F.gelu(to_t), f"{b}.cross_t_up")

    def feed_forward(self, s, t, b):
        n = self.norm(s, f"{b}.clip_ln_2", 1e-5)
        hidden = self.linear(n, f"{b}.clip_mlp.c_fc")
        hidden = hidden / (1 + (-1.702 * hidden).exp())
        s = s + self.linear(hidden, f"{b}.clip_mlp.c_proj") + 0.5 * self.adapter(n, f"{b}.S_MLP_Adapter")
        n = self.norm(t, f"{b}.norm2", 1e-6)
        hidden = F.gelu(self.linear(n, f"{b}.mlp.fc1"))
        return s, t + self.linear(hidden, f"{b}.mlp.fc2") + 0.5 * self.adapter(n, f"{b}.T_MLP_Adapter")

    def one(self, clip):
        s, t = self.embed_spatial(clip), self.embed_temporal(clip)
        for b in (f"blocks.{i}" for i in range(self.c["depth"])):
            s, t = self.exchange(self.attend_spatial(s, b), self.attend_temporal(t, b), b)
            s, t = self.feed_forward(s, t, b)
        s, t = self.norm(s[:, 0].mean(0), "clip_ln_post", 1e-5), self.norm(t.mean(0), "vmae_fc_norm", 1e-6)
        if self.c["composition"]:
            return {"verb": self.linear(t, "head_verb"), "noun": self.linear(s, "head_noun")}
        mixed = self.adapter(s, "noun_last_Adapter") + self.adapter(t, "verb_last_Adapter")
        return {"label": self.linear(mixed, "head")}

    def __call__(self, clips):
        rows = [self.one(clip) for clip in clips]
        return {field: torch.stack([row[field] for row in rows]) for field in rows[0]}


def author_shapes(c):
    """[name, shape, offset] of every tensor of an authors' checkpoint of this size."""
    d, m, r = c["embed_dim"], c["embed_dim"] * c["mlp_ratio"], c["embed_dim"] // c["down_ratio"]
    k, n, t = c["patch_size"], (c["img_size"] // c["patch_size"]) ** 2, c["num_frames"] // 2
    table = [("clip_class_embedding", [d], 0.0), ("clip_positional_embedding", [n + 1, d], 0.0)]

    def linear(name, inputs, outputs):
        table.extend([(f"{name}.weight", [outputs, inputs], 0.0), (f"{name}.bias", [outputs], 0.0)])

    def norm(name, width):
        table.extend([(f"{name}.weight", [width], 1.0), (f"{name}.bias", [width], 0.0)])

    def adapter(name):
        linear(f"{name}.D_fc1", d, d // 4)
        linear(f"{name}.D_fc2", d // 4, d)

    def cross(name, kind, positions):
        table.extend((f"{name}.{x}", shape, 0.0) for x, shape in positions)
        table.extend([(f"{name}.{kind}_q_bias", [r], 0.0), (f"{name}.{kind}_kv_bias", [2 * r], 0.0)])
        table.extend([(f"{name}.{kind}_q.weight", [r, r], 0.0), (f"{name}.{kind}_kv.weight", [2 * r, r], 0.0)])
        linear(f"{name}.t2s_proj", r, r)

    table += [("patch_embed.proj.weight", [d, 3, 2, k, k], 0.0), ("patch_embed.proj.bias", [d], 0.0)]
    table.append(("clip_conv1.weight", [d, 3, k, k], 0.0))
    norm("clip_ln_pre", d)
    for b in (f"blocks.{i}" for i in range(c["depth"])):
        for name in ("clip_ln_1", "clip_ln_2", "norm1", "norm2"):
            norm(f"{b}.{name}", d)
        table += [(f"{b}.clip_attn.in_proj_weight", [3 * d, d], 0.0), (f"{b}.clip_attn.in_proj_bias", [3 * d], 0.0)]
        linear(f"{b}.clip_attn.out_proj", d, d)
        table += [(f"{b}.attn.q_bias", [d], 0.0), (f"{b}.attn.v_bias", [d], 0.0)]
        table.append((f"{b}.attn.qkv.weight", [3 * d, d], 0.0))
        linear(f"{b}.attn.proj", d, d)
        for name in ("S_Adapter", "T_Adapter", "S_MLP_Adapter", "T_MLP_Adapter"):
            adapter(f"{b}.{name}")
        for x in "st":
            linear(f"{b}.cross_{x}_down", d, r)
            norm(f"{b}.ln_{x}_cross", r)
            linear(f"{b}.cross_{x}_up", r, d)
        cross(f"{b}.t2s_cross", "t2s", [("clip_time_pos", [t, r]), ("vmae_time_pos", [t, r])])
        cross(f"{b}.s2t_cross", "s2t", [("clip_space_pos", [n, r]), ("vmae_space_pos", [n, r])])
        linear(f"{b}.clip_mlp.c_fc", d, m)
        linear(f"{b}.clip_mlp.c_proj", m, d)
        linear(f"{b}.mlp.fc1", d, m)
        linear(f"{b}.mlp.fc2", m, d)
    norm("clip_ln_post", d)
    norm("vmae_fc_norm", d)
    if c["composition"]:
        linear("head_verb", d, c["num_classes"]["verb"])
        linear("head_noun", d, c["num_classes"]["noun"])
    else:
        adapter("noun_last_Adapter")
        adapter("verb_last_Adapter")
        linear("head", d, c["num_classes"])
    return table


def make_golden(seed=5, batch=2, **changes):
    """A golden file of the literal CAST."""
    c = {**BASE, **changes}
    table = author_shapes(c)
    tensors = {
        name: torch.from_numpy(
            np.random.default_rng(zlib.crc32(name.encode()) + seed).standard_normal(shape) * 0.05 + offset
        ).float()
        for name, shape, offset in table
    }
    trainable = [name for name in tensors if re.search("cross|Adapter|clip_ln_post|vmae_fc_norm|^head", name)]
    for name in trainable:
        tensors[name].requires_grad_()
    shape = (batch, 3, c["num_frames"], c["img_size"], c["img_size"])
    clips = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()
    counts = c["num_classes"] if c["composition"] else {"label": c["num_classes"]}
    labels = {field: torch.arange(batch) % count for field, count in counts.items()}
    model = LiteralCast(tensors, c)

    def loss_of(logits):
        return sum(F.cross_entropy(logits[field], labels[field]) for field in labels)

    logits = model(clips)
    loss = loss_of(logits)
    gradients = torch.autograd.grad(loss, [tensors[name] for name in trainable])
    group_of = {name: group(name, tensors[name], c["depth"]) for name in trainable}
    optimizer = torch.optim.AdamW(
        [{"params": [tensors[x]], "weight_decay": w, "scale": s} for x, (w, s) in group_of.items()], eps=1e-8
    )
    losses = []
    for rate in RATES:
        for g in optimizer.param_groups:
            g["lr"] = rate * g["scale"]
        optimizer.zero_grad()
        losses.append(loss_of(model(clips)))
        losses[-1].backward()
        optimizer.step()
    sizes = {}
    for name, key in group_of.items():
        sizes[tuple(key)] = sizes.get(tuple(key), 0) + tensors[name].numel()

    def unwrap(by_field):
        return by_field if c["composition"] else by_field["label"]

    return {
        "config": c,
        "seed": seed,
        "batch": batch,
        "parameter_rule": json.loads((GOLDEN / "cast_tiny_single.json").read_text())["parameter_rule"],
        "input_rule": f"numpy.random.default_rng(seed).standard_normal({shape}) as float32",
        "parameters": table,
        "logits": unwrap({field: x.tolist() for field, x in logits.items()}),
        "trainable": trainable,
        "labels": unwrap({field: x.tolist() for field, x in labels.items()}),
        "loss": loss.item(),
        "grad_l2": {name: g.norm().item() for name, g in zip(trainable, gradients, strict=True)},
        "group_of": group_of,
        "finetune": {
            **SCHEDULE,
            "lr_per_step": RATES,
            "losses": [x.item() for x in losses],
            "groups": [{"weight_decay": w, "lr_scale": s, "n": n} for (w, s), n in sizes.items()],
        },
    }


def group(name, tensor, depth):
    block = re.match(r"blocks\.(\d+)\.", name)
    return [
        0.0 if tensor.ndim == 1 or name.endswith("_pos") else 0.05,
        0.8 ** (depth - int(block[1])) if block else 1.0,
    ]


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="golden.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write_file


def test_shipped_golden_files_are_within_tolerance(capsys):
    paths = sorted(GOLDEN.glob("*.json"))
    assert len(paths) == 3
    assert run(paths) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["file"] for result in results] == [str(path) for path in paths]
    assert [result["kind"] for result in results] == ["cast", "cast", "test_views"]
    assert all(result["within_tolerance"] for result in results)
    # Far inside: what remains is rounding, so a wrong epsilon or activation could not hide.
    assert all(result[key] < 1e-5 for result in results[:2] for key in TOLERANCES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"down_ratio": 1},
        {"down_ratio": 4, "depth": 3},
        {"down_ratio": 8, "num_heads": 2},
        {"img_size": 64, "num_frames": 2, "depth": 1},
        {"img_size": 32, "patch_size": 16, "embed_dim": 32, "mlp_ratio": 2, "num_frames": 6},
        {"composition": True, "num_classes": {"noun": 5, "verb": 3}},
    ],
    ids=str,
)
def test_other_sizes_agree_with_the_literal_cast(write, changes):
    result = verify_file(write(make_golden(**changes)))
    assert result["within_tolerance"], result


@pytest.fixture(scope="module")
def small_golden():
    return make_golden(depth=1)


@pytest.mark.parametrize(
    ("where", "factor", "key"),
    [
        (("grad_l2", "blocks.0.cross_s_up.weight"), 1.002, "grad_norms"),
        (("logits", 1, 3), 1.5, "logits"),
        (("loss",), 1.0002, "loss"),
        (("finetune", "losses", 3), 1.0002, "finetune_losses"),
        (("finetune", "lr_per_step", 3), 1.00001, "lr_schedule"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_past_its_tolerance_fails(write, small_golden, where, factor, key, capsys):
    golden = json.loads(json.dumps(small_golden))
    holder = golden
    for step in where[:-1]:
        holder = holder[step]
    holder[where[-1]] *= factor
    assert run([write(golden)]) == 1
    result = json.loads(capsys.readouterr().out)
    assert {name for name in TOLERANCES if result[name] > TOLERANCES[name]} == {key}


def test_a_gradient_norm_within_its_tolerance_passes(write, small_golden):
    golden = json.loads(json.dumps(small_golden))
    golden["grad_l2"]["blocks.0.cross_s_up.weight"] *= 1.0005
    assert verify_file(write(golden))["within_tolerance"]


def test_differing_trainable_sets_are_named(write, small_golden):
    golden = json.loads(json.dumps(small_golden))
    golden["trainable"].remove("blocks.0.S_Adapter.D_fc1.bias")
    golden["trainable"].append("clip_ln_pre.weight")
    result = verify_file(write(golden))
    assert not result["within_tolerance"]
    assert result["trainable_missing"] == ["clip_ln_pre.weight"]
    assert result["trainable_unexpected"] == ["blocks.0.S_Adapter.D_fc1.bias"]


def test_differing_groups_are_named(write, small_golden):
    golden = json.loads(json.dumps(small_golden))
    golden["group_of"]["head.weight"] = [0.0, 1.0]
    result = verify_file(write(golden))
    assert not result["within_tolerance"]
    assert not result["groups_equal"]
    assert result["groups_differing"] == ["head.weight"]


def test_group_of_another_size_fails(write, small_golden):
    golden = json.loads(json.dumps(small_golden))
    golden["finetune"]["groups"][0]["n"] += 1
    assert not verify_file(write(golden))["within_tolerance"]


def test_what_cannot_be_compared_is_null_and_fails(write, small_golden):
    golden = json.loads(json.dumps(small_golden))
    golden["grad_l2"]["not.a.tensor"] = 1.0
    golden["logits"] = [row[:-1] for row in golden["logits"]]
    result = verify_file(write(golden))
    assert result["grad_norms"] is None
    assert result["logits"] is None
    assert not result["within_tolerance"]


def test_differing_views_and_crops_are_named(write):
    golden = json.loads((GOLDEN / "test_views.json").read_text())
    golden["uniform_test_views"]["45"][1][0] += 1
    golden["dense_test_views"]["300"][0][3] += 1
    golden["three_crops"]["256x340"]["offsets"][1] += 1
    result = verify_file(write(golden))
    assert not result["within_tolerance"]
    assert result["differing"] == ["uniform_test_views/45", "dense_test_views/300", "three_crops/256x340"]


def test_one_failing_file_among_good_ones_fails_the_run(write):
    golden = json.loads((GOLDEN / "test_views.json").read_text())
    golden["three_crops"]["256x340"]["axis"] = "height"
    assert run([write(golden), GOLDEN / "test_views.json"]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not JSON"),
        ("[1, 2]", "holds a list"),
        ('{"something": "else"}', "no golden file of a known format"),
        ('{"uniform_test_views": {"16": 3}}', "malformed"),
    ],
)
def test_files_of_another_format_are_named(tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"other\.json.*{message}"):
        verify_file(path)


def test_missing_file_and_empty_list_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json"):
        run([tmp_path / "absent.json"])
    with pytest.raises(UserError, match="no file"):
        run([])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("parameter_rule", "all ones", "unknown parameter_rule"),
        ("input_rule", "all ones", "unknown input_rule"),
        ("parameters", [["head.weight", [7, 64], 0.0]], "missing"),
    ],
)
def test_rules_and_tensors_that_do_not_fit_are_named(write, small_golden, key, value, message):
    with pytest.raises(UserError, match=rf"(?s)golden\.json.*{message}"):
        verify_file(write({**small_golden, key: value}))

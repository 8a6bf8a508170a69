"""What W&B writes of a run in its offline mode, read back from its own files."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from cast_ray.watching.wandb_run import WandbRun, check_wandb


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def records(folder: Path) -> list[list[Record]]:
    """Of each part of the run, in order.

    A file is a LevelDB log: 7 bytes at the beginning, then blocks of 32768 bytes in all with pieces of records, each
    after its checksum (4), length (2) and kind (1: whole, 2: first, 3: middle, 4: last piece).
    """
    parts = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        content, place, data, part = path.read_bytes(), 7, b"", []
        while place < len(content):
            if 32768 - place % 32768 < 7:  # no room for another piece in this block
                place += 32768 - place % 32768
            length, kind = struct.unpack("<HB", content[place + 4 : place + 7].ljust(3, b"\0"))
            if place + 7 + length > len(content):
                break  # it is being written
            data += content[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                part.append(Record.FromString(data))
                data = b""
        parts.append(part)
    return parts


def finished_records(folder: Path) -> list[list[Record]]:
    """The same, when W&B's own process has written all."""
    deadline = time.monotonic() + 60
    while True:
        parts = records(folder)
        if all(part and part[-1].HasField("exit") for part in parts):
            return parts
        assert time.monotonic() < deadline, "W&B does not finish its file"
        time.sleep(0.1)


def logged(part: list[Record], name: str) -> list[tuple[int, float]]:
    rows = []
    for record in part:
        values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        if name in values:
            rows.append((record.history.step.num, values[name]))
    return rows


def test_a_run_has_its_settings_and_figures_and_goes_on_as_the_same(tmp_path):
    check_wandb()
    for steps in ((1, 2, 3), (4, 5)):
        run = WandbRun("project", folder=str(tmp_path), run="ours", config={"optim": {"epochs": 3}, "seed": 7})
        run.start(steps[0] - 1)
        for step in steps:
            run.log(step, {"train/loss": 1.0 / step, "train/epoch": float(step)})
        run.log(steps[-1], {"validation/top1": 0.5})
        run.start(steps[0] - 1)  # workers were lost, and repeat all
        for step in steps:
            run.log(step, {"train/loss": 9.0})
        run.close(steps[-1] == 5)
    first, second = finished_records(tmp_path)
    assert logged(first, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert logged(first, "validation/top1") == [(3, 0.5)]
    assert logged(second, "train/loss") == [(4, 0.25), (5, 0.2)]
    one, other = (next(record.run for record in part if record.HasField("run")) for part in (first, second))
    assert (one.run_id, one.project, one.display_name) == (other.run_id, "project", "ours")
    settings = {
        item.key: json.loads(item.value_json) for record in first for item in record.config.update if item.key
    } | {item.key: json.loads(item.value_json) for item in one.config.update if item.key}
    assert settings["optim"] == {"epochs": 3}
    assert settings["seed"] == 7
    ends = [record.exit.exit_code for part in (first, second) for record in part if record.HasField("exit")]
    assert ends == [1, 0]


def test_without_an_account_it_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Exception, match="wandb login"):
        check_wandb()

"""The cluster launcher's files, without any cloud: Ray's own validation, and what must and must not be in them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import hash_runtime_conf, prepare_config, validate_config

REPOSITORY = Path(__file__).parents[2]
FILES = ["aws", "gcp", "local"]
CLOUDS = ["aws", "gcp"]
TOKEN = "~/.ray/auth_token"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "cluster" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepare_config(read(name))
    validate_config(config)
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("max_worker",), 10),
        (("auth", "ssh_usr"), "ubuntu"),
        (("available_node_types", "gpu", "max_worker"), 2),
        (("available_node_types", "gpu", "resources"), {"GPU": 0.5}),
        (("head_node_type",), "heads"),
        (("idle_timeout_minutes",), "ten"),
    ],
)
def test_a_mistake_is_caught(path: tuple[str, ...], value: Any) -> None:
    """Otherwise the test above would say nothing."""
    config = copy.deepcopy(read("aws"))
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError)):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_nothing_trains_or_decodes_on_the_head(name: str) -> None:
    config = read(name)
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


def test_nothing_trains_or_decodes_on_the_head_of_machines_of_ones_own() -> None:
    assert {"--num-cpus=0", "--num-gpus=0"} <= set(starts(read("local"))[0].split())


@pytest.mark.parametrize("name", CLOUDS)
def test_two_nodes_of_eight_gpus_come_and_go_bought_or_preemptible(name: str) -> None:
    types = read(name)["available_node_types"]
    with_gpus = {kind: node for kind, node in types.items() if "GPU" in node["resources"]}
    assert set(with_gpus) == {"gpu", "gpu_spot"}
    assert sum(node["max_workers"] * node["resources"]["GPU"] for node in with_gpus.values()) == 16
    assert {node["min_workers"] for node in with_gpus.values()} == {0}
    assert types["gpu"]["resources"] == types["gpu_spot"]["resources"]
    bought, spot = (json.dumps(types[kind]["node_config"]).lower() for kind in ("gpu", "gpu_spot"))
    assert "spot" in spot
    assert "spot" not in bought


@pytest.mark.parametrize("name", CLOUDS)
def test_the_swap_of_the_docs_gives_two_preemptible_nodes(name: str) -> None:
    config = read(name)
    types = config["available_node_types"]
    for one, other in (("gpu", "gpu_spot"),):
        types[one]["max_workers"], types[other]["max_workers"] = types[other]["max_workers"], types[one]["max_workers"]
    validate_config(prepare_config(config))
    assert (types["gpu"]["max_workers"], types["gpu_spot"]["max_workers"]) == (0, 2)


@pytest.mark.parametrize("name", CLOUDS)
def test_decoding_nodes_come_and_go(name: str) -> None:
    config = read(name)
    decode = config["available_node_types"]["decode"]
    assert decode["min_workers"] == 0
    assert 0 < decode["idle_timeout_s"] <= 600
    assert "GPU" not in decode["resources"]
    assert config["idle_timeout_minutes"] > 0
    # idle_timeout_s is read by version 2 of the autoscaler only.
    assert "RAY_enable_autoscaler_v2=1" in starts(config)[0]
    assert config["max_workers"] >= 2 + decode["max_workers"]


def starts(config: dict[str, Any]) -> list[str]:
    """The commands that start Ray: the head's first."""
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    return [command for command in commands if "ray start" in command]


@pytest.mark.parametrize("name", FILES)
def test_every_node_wants_the_token_and_has_it(name: str) -> None:
    config = read(name)
    assert len(starts(config)) == 2
    for command in starts(config):
        before, _ = command.split("ray start")
        assert re.search(r"export [^;]*RAY_AUTH_MODE=token\b", before)
    assert config["file_mounts"][TOKEN] == TOKEN


@pytest.mark.parametrize("name", FILES)
def test_a_stopped_job_has_time_for_its_checkpoint(name: str) -> None:
    """Ray kills after 3 seconds otherwise."""
    assert re.search(r"export [^;]*RAY_JOB_STOP_WAIT_TIME_S=120\b", starts(read(name))[0])


@pytest.mark.parametrize("name", FILES)
def test_no_port_is_open_to_the_world(name: str) -> None:
    text = (REPOSITORY / "cluster" / f"{name}.yaml").read_text()
    assert "0.0.0.0" not in text
    assert "::/0" not in text
    assert re.findall(r"--dashboard-host=(\S+)", text) == ["127.0.0.1"]


def test_aws_uses_our_security_group_and_roles() -> None:
    """Ray's own group lets the world in by SSH; its own role may not give workers theirs."""
    for node in read("aws")["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("cast-ray-")


def test_gcp_nodes_carry_the_tag_of_the_firewall_rule() -> None:
    page = (REPOSITORY / "docs" / "clusters" / "gcp.md").read_text()
    (tag,) = re.findall(r"--target-tags (\S+)", page)
    for node in read("gcp")["available_node_types"].values():
        assert node["node_config"]["tags"]["items"] == [tag]


def test_gcp_has_a_driver_for_our_cuda() -> None:
    """CUDA 13 needs driver 580 (CUDA toolkit release notes, table of minimum driver versions)."""
    (cuda,) = re.findall(r'name = "nvidia-cuda-runtime"\nversion = "(\d+)\.', (REPOSITORY / "uv.lock").read_text())
    assert int(cuda) <= 13
    for node in read("gcp")["available_node_types"].values():
        image = node["node_config"]["disks"][0]["initializeParams"]["sourceImage"]
        assert int(image.rsplit("-", 1)[1]) >= 580


SECRETS = r"AKIA|ASIA|-----BEGIN|ghp_|hf_[A-Za-z]{10}|(?i:password|secret|api_key|access_key)\s*[:=]"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "cluster").rglob("*.*")), ids=lambda path: path.name)
def test_no_secret_is_in_a_file(path: Path) -> None:
    assert not re.search(SECRETS, path.read_text())
    assert not re.search(r"\b[0-9a-f]{64}\b", path.read_text())  # a token of Ray's


@pytest.mark.parametrize("name", FILES)
def test_nodes_get_what_they_need_and_no_more(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is copied is there, `make install` needs nothing else of us, and Ray can read it through."""
    mounts = {there: here for there, here in read(name)["file_mounts"].items() if here != TOKEN}
    assert {Path(there).name: here for there, here in mounts.items()} == {here: here for here in mounts.values()}
    assert {Path(there).parent for there in mounts} == {Path("~/cast_ray")}
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    assert {"cast_ray", "jobs", "pyproject.toml", "uv.lock", "Makefile"} <= set(mounts.values())
    (readme,), (licence,) = (
        re.findall(r'readme = "(.+)"', pyproject),
        re.findall(r'license-files = \["(.+)"\]', pyproject),
    )
    assert {readme, licence} <= set(mounts.values())
    size = sum(
        file.stat().st_size
        for here in mounts.values()
        for file in [REPOSITORY / here, *(REPOSITORY / here).rglob("*")]
        if file.is_file() and "__pycache__" not in file.parts
    )
    assert size < 10 * 2**20
    monkeypatch.chdir(REPOSITORY)
    hash_runtime_conf(mounts, [], [])


def test_ray_hashes_a_folder_that_has_changed_to_something_else(tmp_path: Path) -> None:
    """The test above relies on it to read all files."""
    (tmp_path / "file").write_text("one")
    one = hash_runtime_conf({"a": str(tmp_path)}, [], [], generate_file_mounts_contents_hash=True)[1]
    (tmp_path / "file").write_text("two")
    assert one != hash_runtime_conf({"a": str(tmp_path)}, [], [], generate_file_mounts_contents_hash=True)[1]

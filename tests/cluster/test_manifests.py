"""The Kubernetes manifests, without a cluster: the operator's fields, and what must and must not be in them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = {"cluster": "raycluster", "job": "rayjob"}
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").glob("*.json")}
REGISTRY = Registry().with_resources((f"{name}.json", Resource.from_contents(text)) for name, text in SCHEMAS.items())


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "cluster" / "kuberay" / f"{name}.yaml").read_text())


def validate(manifest: dict[str, Any], schema: str) -> None:
    jsonschema.Draft202012Validator(SCHEMAS[schema], registry=REGISTRY).validate(manifest)


def group(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in manifest["spec"]["workerGroupSpecs"] if each["groupName"] == name]
    return found


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"]
    return [each["template"]["spec"] for each in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]]


@pytest.mark.parametrize(("name", "schema"), MANIFESTS.items())
def test_the_operator_knows_every_field(name: str, schema: str) -> None:
    validate(read(name), schema)


def worker(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: change(manifest["spec"]["workerGroupSpecs"][0])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cluster", lambda manifest: manifest.update(kind="Raycluster")),
        ("cluster", lambda manifest: manifest["metadata"].pop("name")),
        ("cluster", lambda manifest: manifest["spec"].update(enableAutoscaling=True)),
        ("cluster", lambda manifest: manifest["spec"].pop("headGroupSpec")),
        ("cluster", lambda manifest: manifest["spec"]["autoscalerOptions"].update(version="v3")),
        ("cluster", lambda manifest: manifest["spec"]["authOptions"].update(mode="none")),
        ("cluster", lambda manifest: manifest["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0})),
        ("cluster", worker(lambda group: group.update(minReplica=0))),
        ("cluster", worker(lambda group: group.pop("template"))),
        ("cluster", worker(lambda group: group.update(maxReplicas="2"))),
        ("cluster", worker(lambda group: group["template"]["spec"].update(restartPolicy="never"))),
        ("cluster", worker(lambda group: group["template"]["spec"]["containers"][0].pop("image"))),
        ("cluster", worker(lambda group: group["template"]["spec"]["containers"][0]["resources"].update(limit={}))),
        ("cluster", worker(lambda group: group["template"]["spec"]["volumes"][0]["emptyDir"].update(sizeLimit="1GB"))),
        ("job", lambda manifest: manifest["spec"].update(submissionMode="K8SJobMode")),
        ("job", lambda manifest: manifest["spec"].update(entryPoint="true")),
        ("job", lambda manifest: manifest["spec"].pop("clusterSelector")),
        ("job", lambda manifest: manifest["spec"].update(backoffLimit=2)),
    ],
)
def test_a_mistake_is_caught(name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Otherwise the test above would say nothing."""
    manifest = copy.deepcopy(read(name))
    change(manifest)
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest, MANIFESTS[name])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schemas_are_schemas(schema: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[schema])


def test_the_cluster_has_two_gpu_pods_of_eight_and_decoding_pods_that_come_and_go() -> None:
    manifest = read("cluster")
    assert manifest["spec"]["enableInTreeAutoscaling"] is True
    assert manifest["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpu, decode = group(manifest, "gpu"), group(manifest, "decode")
    (container,) = gpu["template"]["spec"]["containers"]
    assert gpu["maxReplicas"] * container["resources"]["limits"]["nvidia.com/gpu"] == 16
    for each in (gpu, decode):
        assert (each["minReplicas"], each["replicas"]) == (0, 0)
    assert 0 < decode["idleTimeoutSeconds"] <= 600
    assert "nvidia.com/gpu" not in decode["template"]["spec"]["containers"][0]["resources"]["limits"]
    # Per-group idle timeouts are read by version 2 of the autoscaler only.
    assert manifest["spec"]["autoscalerOptions"]["version"] == "v2"


def test_requests_equal_limits_and_shared_memory_is_enough_for_the_object_store() -> None:
    """Ray takes 30 % of a container's memory for its store, which lies in /dev/shm."""
    units = {"Gi": 2**30}
    for pod in pods(read("cluster"))[1:]:
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        memory, shared = container["resources"]["limits"]["memory"], pod["volumes"][0]["emptyDir"]["sizeLimit"]
        assert int(shared[:-2]) * units[shared[-2:]] >= 0.3 * int(memory[:-2]) * units[memory[-2:]]


def test_the_token_is_wanted_and_nothing_is_open_to_the_world() -> None:
    manifest = read("cluster")
    assert manifest["spec"]["authOptions"] == {"mode": "token"}
    assert manifest["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in manifest["spec"]["headGroupSpec"]


def test_every_mounted_volume_is_there_and_every_claimed_one_is_mounted() -> None:
    for pod in pods(read("cluster")):
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]} == volumes


def test_job_and_cluster_belong_together() -> None:
    cluster, job = read("cluster"), read("job")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    images = {container["image"] for pod in pods(cluster) for container in pod["containers"]}
    (submitter,) = job["spec"]["submitterPodTemplate"]["spec"]["containers"]
    assert images == {submitter["image"]}
    assert cluster["spec"]["rayVersion"] == version("ray")


def test_the_jobs_command_is_one_of_ours_in_the_image() -> None:
    job = read("job")["spec"]["entrypoint"]
    (workdir,) = re.findall(r"^WORKDIR (\S+)$", (REPOSITORY / "cluster/image/Dockerfile").read_text(), re.MULTILINE)
    (script,) = re.findall(r"^python (\S+\.py) ", job)
    assert (REPOSITORY / Path(script).relative_to(workdir)).is_file()
    shared = {mount["mountPath"] for mount in pods(read("cluster"))[0]["containers"][0]["volumeMounts"]}
    for path in re.findall(r" (/\S+)", job.removeprefix(f"python {script}")):
        assert f"/{Path(path).parts[1]}" in shared

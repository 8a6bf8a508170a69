"""The image, without building it: its packages are those of the lock file, and all that its steps need is there."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = (REPOSITORY / "cluster" / "image" / "Dockerfile").read_text()
LINUX = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_system": "Linux",
}


def environment() -> dict[str, str]:
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE)
    return LINUX | {"python_version": python, "python_full_version": f"{python}.9"}


def synced() -> list[list[str]]:
    """The flags of each `uv sync` in the image."""
    return [line.split() for line in re.findall(r"^RUN uv sync (.*)$", DOCKERFILE, re.MULTILINE)]


def installed(flags: list[str]) -> dict[str, str]:
    """What uv itself says that these flags install: versions by name."""
    uv = shutil.which("uv") or REPOSITORY / ".bootstrap" / "bin" / "uv"
    flags = [flag for flag in flags if flag != "--no-cache"]
    command = [uv, "export", "--offline", "--quiet", "--no-hashes", "--no-annotate", "--no-header", "--no-emit-project"]
    lines = subprocess.run([*command, *flags], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    requirements = [Requirement(line) for line in lines.splitlines() if line]
    kept = [each for each in requirements if each.marker is None or each.marker.evaluate(environment())]
    return {each.name: str(each.specifier).removeprefix("==") for each in kept}


def closure(extras: set[str]) -> dict[str, str]:
    """What follows from the lock file, package by package: versions by name."""
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    packages: dict[str, list[dict]] = {}
    for package in lock["package"]:
        packages.setdefault(package["name"], []).append(package)
    found: dict[str, str] = {}
    seen: set[tuple[str, str, frozenset[str]]] = set()
    (project,) = packages["cast-ray"]
    waiting = [(project, frozenset(extras))]
    while waiting:
        package, wanted = waiting.pop()
        if (package["name"], package["version"], wanted) in seen:
            continue
        seen.add((package["name"], package["version"], wanted))
        found[package["name"]] = package["version"]
        optional = package.get("optional-dependencies", {})
        for need in [*package.get("dependencies", []), *(need for extra in wanted for need in optional.get(extra, []))]:
            if "marker" in need and not Requirement(f"x; {need['marker']}").marker.evaluate(environment()):
                continue
            (chosen,) = [
                each for each in packages[need["name"]] if need.get("version", each["version"]) == each["version"]
            ]
            waiting.append((chosen, frozenset(need.get("extra", []))))
    del found["cast-ray"]
    return found


def test_the_images_packages_are_those_of_the_lock_file() -> None:
    last = synced()[-1]
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "--frozen" in last
    found = installed(last)
    assert found == closure(set(extras))
    assert len(found) > 100


def test_the_comparison_notices_a_missing_extra() -> None:
    """Otherwise the test above would say nothing."""
    assert installed(["--frozen", "--no-default-groups"]).items() < installed(synced()[-1]).items()


def test_no_tool_for_developing_is_in_the_image() -> None:
    found = installed(synced()[-1])
    assert not {"pytest", "mypy", "ruff", "moto", "hypothesis"} & found.keys()
    assert {"ray", "torch", "deepspeed", "torchcodec", "onnxruntime", "mlflow-skinny", "wandb"} <= found.keys()


def test_packages_come_before_the_project_with_the_same_flags() -> None:
    first, last = synced()
    assert first == [*last, "--no-install-project"]


def test_python_and_uv_are_those_of_the_project() -> None:
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE)
    assert python == (REPOSITORY / ".python-version").read_text().strip()
    makefile = (REPOSITORY / "Makefile").read_text()
    assert re.findall(r"uv==([\d.]+)", DOCKERFILE) == re.findall(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert re.findall(r"uv==([\d.]+)", DOCKERFILE) == [installed(synced()[-1])["uv"]]


@pytest.mark.parametrize(
    "needed", ["pyproject.toml", "uv.lock", "README.md", "LICENSE", "cast_ray/cli.py", "jobs/tune.py"]
)
def test_what_the_build_needs_is_not_left_out(needed: str) -> None:
    """The wheel's metadata name the read-me and the licence."""
    assert (REPOSITORY / needed).exists()
    assert not ignored(needed)


@pytest.mark.parametrize(
    "big", [".git/HEAD", ".venv/bin/python", "demo/run", "tests/clips/a.mp4", "cast_ray/__pycache__/a"]
)
def test_what_the_build_does_not_need_is_left_out(big: str) -> None:
    assert ignored(big)


def ignored(path: str) -> bool:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    parts = Path(path).parts
    whole = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(
        fnmatch.fnmatch(each, line.removeprefix("**/"))
        if not line.startswith("**/")
        else fnmatch.fnmatch(f"/{each}", f"*/{line[3:]}")
        for line in lines
        for each in whole
    )

"""The troubleshooting page: the messages that it explains are ones that somebody gives."""

from __future__ import annotations

import mmap
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### `(.+?)`", PAGE, re.MULTILINE)


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def ours() -> str:
    """Our source, with text that goes over lines put together and every value as `...`."""
    text = "\n".join(path.read_text() for path in (REPOSITORY / "cast_ray").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\{[^{}\n]*\}", "...", joined)


@cache
def theirs() -> list[Path]:
    ray, torch = package("ray"), package("torch")
    return [
        *ray.glob("_private/**/*.py"),
        *ray.glob("dashboard/**/*.py"),
        *ray.glob("autoscaler/**/*.py"),
        ray / "exceptions.py",
        ray / "core/src/ray/raylet/raylet",
        torch / "lib/libc10_cuda.so",
        torch / "lib/libtorch_cpu.so",
        torch / "lib/libtorch_cuda.so",
    ]


def in_file(path: Path, text: bytes) -> bool:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


FROM_ELSEWHERE = {
    "BackoffLimit is incompatible with": "the operator, ValidateRayJobSpec",
    "No module named 'ray'": "Python",
}


@pytest.mark.parametrize("message", [message for message in MESSAGES if message not in FROM_ELSEWHERE])
def test_the_message_is_one_that_this_project_ray_or_pytorch_gives(message: str) -> None:
    # Ray puts some of its messages together from pieces.
    pieces = re.split(r"(?:\s*\.\.\.\s*|\d+ seconds. Job is now being )", message)
    assert message in ours() or all(any(in_file(path, piece.strip().encode()) for path in theirs()) for piece in pieces)


def test_a_message_that_nobody_gives_is_noticed() -> None:
    """Otherwise the test above would say nothing."""
    message = "the frobnicator has no workers"
    assert message not in ours()
    assert not any(in_file(path, message.encode()) for path in theirs() if path.suffix != ".so")  # those are large


def test_each_message_has_one_entry_with_something_to_do() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) > 25
    for entry in PAGE.split("### ")[1:]:
        assert len(entry.split("## ")[0].strip().splitlines()) > 1

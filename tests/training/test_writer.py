"""Checkpoints in the background, on storage that fails in ways that a test chooses."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from cast_ray.data.storage import written_whole
from cast_ray.errors import UserError
from cast_ray.training.writer import BackgroundWriter


class Writing:
    """Stands for a checkpoint: two files, and a fault of the disk at the second one for the first few times."""

    def __init__(self, faults: int, error: Exception) -> None:
        self.faults = faults
        self.error = error
        self.folders: list[str] = []

    def __call__(self, folder: str) -> None:
        self.folders.append(folder)
        Path(folder, "weights").write_bytes(b"w")
        if len(self.folders) <= self.faults:
            with written_whole(pafs.LocalFileSystem(), f"{folder}/state") as sink:
                sink.write(b"half")
                raise self.error
        Path(folder, "state").write_bytes(b"whole")


def writer_to(root: Path, retry_s: float) -> tuple[BackgroundWriter, list[str]]:
    said: list[str] = []
    return BackgroundWriter(pafs.LocalFileSystem(), str(root), retry_s=retry_s, say=said.append), said


def test_a_folder_is_written_while_the_caller_goes_on(tmp_path):
    go_on = threading.Event()
    writer, _ = writer_to(tmp_path, 1)
    writer.start(lambda folder: go_on.wait(30) and Path(folder, "state").touch())
    assert not writer.done
    go_on.set()
    assert [path.name for path in Path(writer.result()).iterdir()] == ["state"]
    assert not writer.done


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("AWS Error NETWORK_CONNECTION")], ids=str
)
def test_a_storage_that_fails_for_a_while_is_tried_again_and_said_to_fail(tmp_path, error):
    writing = Writing(2, error)
    writer, said = writer_to(tmp_path, 30)
    writer.start(writing)
    folder = Path(writer.result())
    assert len(writing.folders) == 3
    assert len(said) == 2
    assert all("cannot write a checkpoint" in text and "trying again, training goes on" in text for text in said)
    assert "o space left" in said[0] or "NETWORK_CONNECTION" in said[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"weights": b"w", "state": b"whole"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_storage_that_does_not_recover_is_an_error_in_words_and_leaves_nothing(tmp_path):
    writer, said = writer_to(tmp_path, 1.0)
    started = time.monotonic()
    writer.start(Writing(99, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match=r"no checkpoint could be written to .* for 1 s: no space left.*same command"):
        writer.result()
    assert time.monotonic() - started < 10
    assert said
    assert not list(tmp_path.iterdir())
    assert not writer.done


def test_what_is_not_the_storages_fault_is_not_tried_again(tmp_path):
    writing = Writing(99, TypeError("a defect of ours"))
    writer, said = writer_to(tmp_path, 30)
    writer.start(writing)
    with pytest.raises(TypeError, match="a defect of ours"):
        writer.result()
    assert (len(writing.folders), said) == (1, [])


def test_the_next_folder_does_not_know_of_an_earlier_failure(tmp_path):
    writer, _ = writer_to(tmp_path, 0.1)
    writer.start(Writing(99, OSError("down")))
    with pytest.raises(UserError):
        writer.result()
    writer.start(Writing(0, OSError()))
    assert Path(writer.result(), "state").read_bytes() == b"whole"

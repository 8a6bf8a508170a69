"""What TensorBoard reads of a run, also of one that was interrupted."""

from __future__ import annotations

import pyarrow.fs as pafs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cast_ray.watching import tensorboard
from cast_ray.watching.tensorboard import TensorBoard


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def write(folder, start: int, losses: dict[int, float], *, config: dict | None = None) -> TensorBoard:
    board = TensorBoard(str(folder), config or {})
    board.start(start)
    for step, loss in losses.items():
        board.log(step, {"train/loss": loss})
    return board


def test_figures_and_settings_come_out_as_they_were_put_in(tmp_path):
    board = write(tmp_path, 0, {10: 2.5, 20: 2.0}, config={"optim": {"epochs": 3}})
    board.log(20, {"validation/top1": 0.5})
    board.close(True)
    assert scalars(tmp_path / "tensorboard") == {
        "train/loss": [(10, 2.5), (20, 2.0)],
        "validation/top1": [(20, 0.5)],
    }
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (text,) = events.Tensors("configuration/text_summary")
    assert b'"epochs": 3' in text.tensor_proto.string_val[0]


def test_steps_that_a_new_driver_repeats_appear_once(tmp_path):
    """Killed after 40, with a checkpoint at 20, and then logged less often."""
    write(tmp_path, 0, {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0}).close(False)
    write(tmp_path, 20, {30: 3.5, 50: 5.0}).close(True)
    assert scalars(tmp_path / "tensorboard") == {"train/loss": [(10, 1.0), (20, 2.0), (30, 3.5), (50, 5.0)]}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Tensors("configuration/text_summary")) == 1


def test_steps_that_new_workers_of_the_same_driver_repeat_appear_once(tmp_path):
    board = write(tmp_path, 0, {1: 1.0, 2: 2.0, 3: 3.0})
    board.start(1)
    board.log(2, {"train/loss": 2.5})
    board.close(False)
    assert scalars(tmp_path / "tensorboard") == {"train/loss": [(1, 1.0), (2, 2.5)]}


def test_a_run_that_is_lost_before_its_first_checkpoint_begins_anew(tmp_path):
    write(tmp_path, 0, {1: 1.0, 2: 2.0}).close(False)
    write(tmp_path, 0, {1: 1.5}).close(False)
    assert scalars(tmp_path / "tensorboard") == {"train/loss": [(1, 1.5)]}


def test_a_bucket_gets_all_parts_of_a_run_while_it_goes_on(tmp_path, s3_bucket, monkeypatch):
    folder = f"{s3_bucket}/runs/first"
    write(folder, 0, {1: 1.0, 2: 2.0, 3: 3.0}).close(False)
    monkeypatch.setattr(tensorboard, "COPY_EVERY_S", 0.0)
    board = write(folder, 1, {2: 2.5})

    def fetched(name: str) -> dict[str, list[tuple[int, float]]]:
        storage, path = pafs.FileSystem.from_uri(f"{folder}/tensorboard")
        (tmp_path / name).mkdir()
        pafs.copy_files(path, str(tmp_path / name), source_filesystem=storage)
        return scalars(tmp_path / name)

    assert fetched("meanwhile") == {"train/loss": [(1, 1.0), (2, 2.5)]}
    board.log(3, {"train/loss": 3.5})
    board.close(True)
    assert fetched("after") == {"train/loss": [(1, 1.0), (2, 2.5), (3, 3.5)]}

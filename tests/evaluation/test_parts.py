"""Parts: each clip exactly once, whatever the number of replicas, the size of batches and parts, and the kills."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.evaluation.parts import ROW, VALID, Assembler, Columns, PartPlan

plans = st.builds(PartPlan, clips=st.integers(1, 60), clips_per_part=st.integers(1, 25))


def batch(rows: list[int]) -> dict[str, np.ndarray]:
    numbers = np.array(rows, np.int64)
    return {ROW: numbers, VALID: numbers % 7 != 3, "clip_id": np.array([f"clip {row}" for row in rows], dtype=object)}


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[PartPlan, list[list[list[int]]]]:
    """A plan, and for each process until the last the blocks of rows in the order in which the writer gets them."""
    plan = draw(plans)
    replicas, size = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    kills = draw(st.lists(st.integers(0, 70), max_size=3))
    processes = []
    finished: set[int] = set()
    for kill in [*kills, None]:
        missing = plan.missing_rows(finished).tolist()
        blocks = [missing[first : first + size] for first in range(0, len(missing), size)]
        queues = [blocks[replica::replicas] for replica in range(replicas)]
        order: list[list[int]] = []
        while any(queues):
            queue = draw(st.sampled_from([queue for queue in queues if queue]))
            order.append(queue.pop(0))
            if draw(st.integers(0, 9)) == 0:  # Ray does a block of a lost replica again
                order.append(draw(st.sampled_from(order)))
        order = order if kill is None else order[:kill]
        processes.append(order)
        finished |= {part for part, _ in assembled(plan, finished, order)}
    return plan, processes


def assembled(plan: PartPlan, finished: set[int], order: list[list[int]]) -> list[tuple[int, Columns]]:
    assembler, parts = Assembler(plan, finished), []
    for rows in order:
        for part, columns in assembler.add(batch(rows)):
            parts.append((part, columns))
            assembler.written(part)
    return parts


@given(evaluations())
def test_each_clip_is_in_exactly_one_part_and_finished_parts_are_not_made_again(evaluation):
    plan, processes = evaluation
    folder: dict[str, list[str]] = {}
    for order in processes:
        there = set(plan.finished(folder))
        for part, rows in assembled(plan, there, order):
            assert plan.names[part] not in folder
            assert rows[ROW].tolist() == sorted(rows[ROW].tolist())
            folder[plan.names[part]] = rows["clip_id"].tolist()
    written = [clip for name in sorted(folder) for clip in folder[name]]
    assert written == [f"clip {row}" for row in range(plan.clips)]
    assert len(folder) == len(plan.names) == len(set(plan.names))


@given(evaluations())
def test_clips_are_counted_once_though_they_come_twice(evaluation):
    plan, processes = evaluation
    assembler = Assembler(plan)
    for order in processes:
        for rows in order:
            assembler.add(batch(rows))
    came = {row for order in processes for rows in order for row in rows}
    assert assembler.clips == len(came)
    assert assembler.unreadable == sum(row % 7 == 3 for row in came)


@given(plans)
def test_the_rows_that_are_missing_are_those_of_other_parts(plan):
    finished = list(range(0, len(plan.names), 2))
    per_part = [range(part * plan.clips_per_part, part * plan.clips_per_part + plan.size(part)) for part in finished]
    expected = sorted(set(range(plan.clips)) - {row for rows in per_part for row in rows})
    assert plan.missing_rows(finished).tolist() == expected


def test_a_part_of_which_a_row_never_comes_is_not_complete():
    assembler = Assembler(PartPlan(clips=4, clips_per_part=4))
    assert assembler.add(batch([0, 1, 3])) == []
    assert assembler.add(batch([0, 1, 3])) == []
    ((part, rows),) = assembler.add(batch([2]))
    assert (part, rows["clip_id"].tolist()) == (0, ["clip 0", "clip 1", "clip 2", "clip 3"])


def test_a_whole_part_comes_again_with_its_rows_until_it_is_written():
    assembler = Assembler(PartPlan(clips=4, clips_per_part=2))
    for _ in range(2):
        ((part, rows),) = assembler.add(batch([0, 1]))
        assert (part, rows["clip_id"].tolist(), assembler.is_written(0)) == (0, ["clip 0", "clip 1"], False)
    assembler.written(0)
    assert assembler.is_written(0)
    assert assembler.add(batch([0, 1])) == []
    assert assembler.clips == 2

"""How rows get from the board to everything that watches: every row, in order, as it was posted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray

from cast_ray.training.progress import shown


class Board:
    """In place of the actor: `take` hands out the rows that were put here."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.take = SimpleNamespace(remote=self._take)

    def _take(self) -> list[dict]:
        rows, self.rows = self.rows, []
        return rows


class Notes:
    """A watcher that notes what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.closed = 0

    def show(self, row: dict) -> None:
        self.rows.append(row)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def board(monkeypatch) -> Board:
    monkeypatch.setattr(ray, "get", lambda rows, timeout: rows)
    return Board()


def test_every_watcher_gets_every_posted_row_once_and_in_order_and_is_closed(board):
    one, other = Notes(), Notes()
    with shown(board, [one, other]):
        board.rows += [{"kind": "note", "number": number} for number in range(2)]
        board.rows += [{"kind": "note", "number": number} for number in range(2, 4)]
    for notes in (one, other):
        assert [row["number"] for row in notes.rows] == [0, 1, 2, 3]
        assert notes.closed == 1


def test_rows_posted_before_a_failure_are_shown(board):
    notes = Notes()
    board.rows.append({"kind": "note"})
    with pytest.raises(RuntimeError, match="training failed"), shown(board, [notes]):
        raise RuntimeError("training failed")
    assert (len(notes.rows), notes.closed) == (1, 1)


def test_a_lost_cluster_does_not_hide_the_error_of_the_run(board, monkeypatch):
    def lost(rows, timeout):
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(ray, "get", lost)
    notes = Notes()
    with pytest.raises(RuntimeError, match="training failed"), shown(board, [notes]):
        raise RuntimeError("training failed")
    assert notes.closed == 1

"""Matrices are sparse, and their orders put confused classes side by side."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.report.confusion import FEW_CLASSES, confusion_chart, frequent_mistakes, most_confused, neighbour_order


def test_the_cells_are_the_matrix():
    confusion = np.random.default_rng(0).poisson(0.3, (9, 9))
    chart = confusion_chart(confusion, [f"c{index}" for index in range(9)], title="t")
    again = np.zeros_like(confusion)
    again[chart.cells[:, 0], chart.cells[:, 1]] = chart.cells[:, 2]
    np.testing.assert_array_equal(again, confusion)
    assert (chart.cells[:, 2] > 0).all()
    np.testing.assert_array_equal(chart.support, confusion.sum(1))


@given(st.integers(1, 30), st.integers(0, 5))
def test_an_order_has_every_class_once(size, seed):
    confusion = np.random.default_rng(seed).poisson(0.2, (size, size))
    assert sorted(neighbour_order(confusion)) == list(range(size))


def test_pairs_that_are_confused_become_neighbours():
    confusion = np.eye(6, dtype=np.int64) * 10
    confusion[0, 3] = confusion[5, 1] = confusion[4, 2] = 7
    order = neighbour_order(confusion)
    for one, other in ((0, 3), (5, 1), (4, 2)):
        assert abs(order.index(one) - order.index(other)) == 1


def test_of_many_classes_the_most_confused_are_shown_first():
    size = 400
    confusion = np.eye(size, dtype=np.int64) * 50
    confusion[17, 321], confusion[200, 3] = 40, 30
    chosen = most_confused(confusion, FEW_CLASSES)
    assert len(chosen) == len(set(chosen)) == FEW_CLASSES
    assert {17, 321, 200, 3} <= set(chosen)
    chart = confusion_chart(confusion, [str(index) for index in range(size)], title="t")
    assert [len(order) for order in chart.orders.values()] == [FEW_CLASSES, size, size]
    few = confusion_chart(confusion[:FEW_CLASSES, :FEW_CLASSES], [str(i) for i in range(FEW_CLASSES)], title="t")
    assert next(iter(few.orders.values())) == tuple(range(FEW_CLASSES))


def test_mistakes_are_listed_by_frequency_without_the_right_answers():
    confusion = np.array([[9, 1, 0], [4, 9, 0], [0, 0, 9]])
    found = [(one.true, one.predicted, one.clips) for one in frequent_mistakes(confusion, most=6)]
    assert found == [(1, 0, 4), (0, 1, 1)]

"""The fingerprint of tensors: equal for equal bits, whatever their order and layout in memory."""

from __future__ import annotations

import torch

from cast_ray.weights.fingerprint import tensor_fingerprint


def test_it_depends_on_names_types_shapes_and_bits_alone():
    one, two = torch.arange(6.0).reshape(2, 3), torch.tensor(0.0)
    same = tensor_fingerprint([("one", one), ("two", two)])
    assert tensor_fingerprint([("two", two), ("one", one.T.contiguous().T)]) == same
    for other in (
        [("one", one), ("three", two)],
        [("one", one.reshape(3, 2)), ("two", two)],
        [("one", one), ("two", -two)],
        [("one", one), ("two", two.view(torch.int32))],
    ):
        assert tensor_fingerprint(other) != same

"""NAME=VALUE flags."""

from __future__ import annotations

import pytest

from cast_ray.errors import UserError
from cast_ray.tuning.pairs import pairs


def test_the_first_equals_sign_ends_the_name():
    assert pairs("datasets", ["a=s3://b/c?region=x", "b=/c"]) == {"a": "s3://b/c?region=x", "b": "/c"}
    assert pairs("datasets", []) == {}


@pytest.mark.parametrize("word", ["a", "a=", "=b", ""])
def test_half_a_pair_is_refused_with_the_flag(word):
    with pytest.raises(UserError, match=f"--datasets has '{word}'; give NAME=VALUE"):
        pairs("datasets", ["x=y", word])


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(UserError, match="--datasets has a twice: 'b' and 'c'"):
        pairs("datasets", ["a=b", "a=c"])

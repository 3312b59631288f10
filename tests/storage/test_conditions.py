"""What a refusal says of conditions that differ: the one condition, and both values."""

import json

import pytest

from slimnet.storage.conditions import change_in_words

RECIPE = {"arch": "resnet56", "iterations": 5, "lr": 0.01, "arch_args": {"width": 1}}


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ({"seed": 0}, {"seed": 0}, None),
        ({"seed": 0, "old": 1}, {"seed": 0}, None),
        ({"seed": 0}, {"seed": 3}, "seed 0, not 3"),
        ({}, {"recalibrate": True}, "recalibrate None, not True"),
        ({"r": json.dumps(RECIPE)}, {"r": json.dumps(RECIPE | {"iterations": 6})}, "r.iterations 5, not 6"),
        ({"r": RECIPE}, {"r": RECIPE | {"arch_args": {"width": 2}}}, "r.arch_args.width 1, not 2"),
        ({"r": RECIPE | {"crop": 2}}, {"r": RECIPE}, "r.crop 2, not None"),
        ({"r": json.dumps(RECIPE)}, {"r": json.dumps(RECIPE, indent=1)}, "another r"),
        ({"r": json.dumps(RECIPE)}, {"r": None}, "r, not without"),
        ({"r": None}, {"r": json.dumps(RECIPE)}, "no r, not with it"),
        ({"weights": "a" * 64}, {"weights": "b" * 64}, "other weights"),
        ({"checkpoint": "a" * 64}, {"checkpoint": "b" * 64}, "another checkpoint"),
        ({"name": "{not JSON"}, {"name": "b"}, "name '{not JSON', not 'b'"),
    ],
)
def test_the_first_change_is_named_with_both_values(was, now, words):
    assert change_in_words(was, now) == words

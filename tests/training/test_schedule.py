"""Which streams a step trains on, and where their data stand."""

import pytest

from vlbeit_jax.training.schedule import Schedule


@pytest.mark.parametrize(
    "text",
    ["image,text,pair", "image+text+pair", "image,pair,text,pair", "text", "image+text,pair"],
)
def test_batches_used_before_a_step_are_those_that_were_used(text):
    schedule = Schedule.parse(text)
    for step in range(20):
        for stream in ("image", "text", "pair"):
            assert schedule.used_before(stream, step) == sum(
                stream in schedule.streams_at(past) for past in range(step)
            )


def test_alternating_and_joint():
    assert Schedule.parse("image, text ,pair").streams_at(4) == ("text",)
    assert Schedule.parse("image+text+pair").streams_at(4) == (
        "image",
        "pair",
        "text",
    )

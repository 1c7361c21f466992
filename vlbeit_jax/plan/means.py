"""The mean step of a schedule, from those of its steps."""

import dataclasses

from vlbeit_jax.plan.links import Collective
from vlbeit_jax.plan.step_time import StepTime


def mean_time(weights: list[float], times: list[StepTime | None]) -> StepTime | None:
    """Returns the weighted mean of times; None if they are unknown, which is so for all or none."""
    known = [each for each in times if each is not None]
    if not known:
        return None
    assert len(known) == len(times), "the steps of a schedule are compiled for the same chips"
    means = {
        field.name: sum(
            weight * getattr(each, field.name) for weight, each in zip(weights, known, strict=True)
        )
        for field in dataclasses.fields(StepTime)
        if field.name != "collectives"
    }
    return StepTime(
        **means, collectives=mean_collectives(weights, [each.collectives for each in known])
    )


def mean_collectives(weights: list[float], of_steps: list[list[Collective]]) -> list[Collective]:
    """Returns the collectives of the mean step; counts and bytes need not be whole numbers."""
    if len(of_steps) == 1:
        return of_steps[0]
    sums: dict[tuple, Collective] = {}
    for weight, each in (
        (weight, each) for weight, listed in zip(weights, of_steps, strict=True) for each in listed
    ):
        before = sums.get(each[:4], each._replace(count=0, bytes=0, seconds=0.0))
        sums[each[:4]] = before._replace(
            count=before.count + weight * each.count,
            bytes=before.bytes + weight * each.bytes,
            seconds=before.seconds + weight * each.seconds,
        )
    return list(sums.values())

"""Whatever the trees and the rules are, a warm start is complete or is refused."""

import re

import numpy as np

from tests.training.test_warm_start import problems
from vlbeit_jax.training.start_report import describe
from vlbeit_jax.training.warm_start import Origin, WarmStart, plan_warm_start


def random_case(rng):
    """Two trees that share some names, and rules that may fit them or not."""

    def tree():
        chosen = rng.choice([f"{part}/{leaf}" for part in "ab" for leaf in "xyz"], 4, False)
        return {str(name): (int(rng.integers(1, 3)),) for name in chosen}

    def some(patterns, most):
        return tuple(map(str, rng.choice(patterns, rng.integers(0, most + 1), False)))

    globs = ["a/*", "b/*", "*/x", "*/y", "a/z"]
    grow = [(pattern, lambda array, shape: np.resize(array, shape)) for pattern in some(globs, 3)]
    return tree(), tree(), WarmStart(some(globs, 3), some(globs, 3), tuple(grow))


def matches(name, patterns):
    return any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in patterns)


def test_each_parameter_gets_one_value_or_the_start_is_refused():
    """In any pair of trees; what is used and dropped adds up to the start."""
    rng, accepted, refused = np.random.default_rng(0), 0, 0
    for _ in range(3000):
        source, target, rules = random_case(rng)
        adapted = [pattern for pattern, _ in rules.adapt]
        without_value = {
            name
            for name, shape in target.items()
            if not matches(name, rules.fresh)
            and (
                name not in source
                or matches(name, rules.dropped)
                or (source[name] != shape and not matches(name, adapted))
            )
        }
        left_over = {n for n in source if n not in target and not matches(n, rules.dropped)}
        idle = [p for p in (*rules.fresh, *adapted) if not any(matches(n, [p]) for n in target)]
        idle += [p for p in rules.dropped if not any(matches(n, [p]) for n in source)]
        if without_value or left_over or idle:
            refused += 1
            found = problems(source, target, rules)
            named = {line.split(":")[0] for line in found if not line.startswith("the rule")}
            assert named == without_value | left_over
            assert len(found) == len(named) + len(idle)
            continue
        accepted += 1
        plan = plan_warm_start(source, target, rules)
        assert [each.name for each in plan] == sorted(target)
        for each in plan:
            assert each.shape == target[each.name] and each.source == source.get(each.name)
            assert (each.origin is Origin.FRESH) == matches(each.name, rules.fresh)
            assert (each.adapter is not None) == (each.origin is Origin.ADAPTED)
        used = {each.name for each in plan if each.origin is not Origin.FRESH}
        said = re.search("dropped: (.*)", describe(plan, source))
        assert used | set(said[1].split(", ") if said else ()) == set(source)
    assert accepted > 50 and refused > 50

"""Whether a run in another environment ended as close to the first as a run with another seed.

    python -m tests.accuracies RUN OTHER_ENVIRONMENT OTHER_SEED

Prints each term's held-out accuracy in the three runs. The process exits with code 1 if the
largest distance between the environments exceeds the largest distance between the seeds. Single
terms are not judged, because two seeds may end alike by chance.
"""

import pathlib
import sys
from collections.abc import Mapping

from vlbeit_jax.runtime.metrics_file import read_metrics

ENDING = "/accuracy"


def accuracies(workdir: pathlib.Path) -> dict[str, float]:
    """The last held-out accuracies of a run, by term."""
    last = [line for line in read_metrics(workdir) if line["split"] == "validation"][-1]
    return {
        name.removesuffix(ENDING): value for name, value in last.items() if name.endswith(ENDING)
    }


def distances(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """How far apart two runs are, by term; both have the same terms."""
    if one.keys() != other.keys() or not one:
        raise ValueError(f"runs with other terms: {sorted(one)} and {sorted(other)}")
    return {term: abs(one[term] - other[term]) for term in one}


def verdict(
    run: Mapping[str, float], environment: Mapping[str, float], seed: Mapping[str, float]
) -> bool:
    """Whether the other environment ended like the run."""
    return max(distances(run, environment).values()) <= max(distances(run, seed).values())


def main(folders: list[str]) -> int:
    """The command; returns the exit code."""
    if len(folders) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    runs = [accuracies(pathlib.Path(folder)) for folder in folders]
    print(f"{'term':12} {'run':>8} {'other environment':>18} {'other seed':>11}")
    for term in runs[0]:
        print(f"{term:12} {runs[0][term]:8.4f} {runs[1][term]:18.4f} {runs[2][term]:11.4f}")
    apart = [max(distances(runs[0], other).values()) for other in runs[1:]]
    good = verdict(*runs)
    print(
        f"environments at most {apart[0]:.4f} apart, seeds at most {apart[1]:.4f}: "
        f"{'alike' if good else 'NOT alike'}"
    )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Command: evaluates a pretraining run on prepared data."""

import json
import pathlib

from absl import flags

from vlbeit_jax import cli

OVERVIEW = """Evaluates a pretraining run: each term's masked accuracy beside chance and the unigram
baseline, and the cross-modal gain with its 95% interval.

  python -m vlbeit_jax.evaluate --from=RUN --data=data/cc3m --data=data/wiki --json=results.json

Data sets that the run was trained on are scored on their held-back part, others as a whole. The
cross-modal gain is the masked accuracy of pairs with their own partner minus that with a wrong
one, over the same masks."""

FROM = flags.DEFINE_string("from", None, "workdir of a pretraining run", required=True)
DATA = flags.DEFINE_multi_string(
    "data", None, "prepared pairs, images, texts or tokens, may be repeated", required=True
)
JSON = flags.DEFINE_string("json", None, "file to write", required=True)
DRAWS = flags.DEFINE_integer("draws", 4, "masks drawn for every record", lower_bound=1)


def main() -> None:
    """Evaluates, prints a table and writes the file."""
    from vlbeit_jax.config.common import MeshConfig
    from vlbeit_jax.runtime.evaluation import evaluate, open_run
    from vlbeit_jax.training.mesh import make_mesh

    out = pathlib.Path(JSON.value)
    cli.require_writable(out)
    results = evaluate(
        open_run(pathlib.Path(FROM.value)), DATA.value, make_mesh(MeshConfig()), DRAWS.value
    )
    out.write_text(json.dumps(results, indent=1) + "\n")
    for name, found in results.items():
        if isinstance(found, dict) and "accuracy" in found:
            print(
                f"{name:10s} accuracy {found['accuracy']:7.2%}  "
                f"unigram {found['unigram']:7.2%}  chance {found['chance']:7.3%}  "
                f"loss {found['loss']:.3f}  over {found['count']} masked positions"
            )
        elif isinstance(found, dict):
            print(
                f"{name:10s} {found['value']:+.2%}  "
                f"95% interval {found['low']:+.2%} to {found['high']:+.2%}"
            )
    print(f"written to {out}")


if __name__ == "__main__":
    cli.run(main, OVERVIEW)

"""Does it help to continue pretraining on my pictures?

    python examples/adapt_to_own_data.py PICTURES OUT [--start=RUN] [--steps=400] [--batch=32]

Input: a folder of pictures, each with its caption in a text file of the same name, and a run to
start from (the sample in the package unless you name another). Output: a set, a run and its figures
in OUT, and the masked accuracies on held-out pictures before and after:

                   before    after
    mim             14.1%    16.9%
    mvlm_image      12.3%    15.8%
    mvlm_text       11.5%    16.6%

There is also a line for mlm, captions alone, which this schedule does not train. These figures are
those of docs/adapt.md, where the sample's run continued for 200 steps on 1,019 emoji with names.

The script runs four commands and prints each, so that you can continue from any of them.
docs/adapt.md explains what to change: which parameters to train, the learning rate, and how to keep
what the model knows of the old data.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys

import vlbeit_jax

SAMPLE = pathlib.Path(vlbeit_jax.__file__).parent / "sample_model"
# What the start has of these, so that both runs are scored under equal masks of texts. Masks of
# images are those of the start anyway.
MASKS = ("masked_text", "text_length")
CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "adapt.py"


def main() -> None:
    """Prepares, evaluates, trains, evaluates again and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--start", type=pathlib.Path, default=SAMPLE)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()

    data, run = given.out / "pairs", given.out / "run"
    call("prepare", kind="pairs", format="folder", input=given.pictures, out=data)
    before = evaluated(given.start, data, given.out / "before.json")
    task = json.loads((given.start / "config.json").read_text())["task"]
    config = {
        "run.start_from": given.start,
        "run.steps": given.steps,
        "optimizer.warmup_steps": max(given.steps // 20, 1),
        "task.schedule": "image,pair",
        "loader.workers": 0,  # Few pictures need no processes of their own.
    }
    for stream in ("image", "pair"):
        settings = {"sources": data, "batch_size": given.batch}
        settings |= {name: task[stream][name] for name in MASKS if name in task[stream]}
        config |= {f"task.{stream}.{name}": value for name, value in settings.items()}
    fields = {f"config.{name}": value for name, value in config.items()}
    call("main", config=CONFIG, workdir=run, **fields)
    after = evaluated(run, data, given.out / "after.json")
    print(f"{'':14} {'before':>8} {'after':>8}")
    for term, found in after.items():
        print(f"{term:14} {before[term]:8.1%} {found:8.1%}")


def evaluated(run: pathlib.Path, data: pathlib.Path, results: pathlib.Path) -> dict[str, float]:
    """Returns the masked accuracy of each term on held-out data."""
    # The new run has seen the training part, so both are scored on what is held out from it.
    call("evaluate", **{"from": run}, data=data, split="validation", json=results)
    found = json.loads(results.read_text())
    return {
        name: term["accuracy"]
        for name, term in found.items()
        if isinstance(term, dict) and "accuracy" in term
    }


def call(module: str, **flags: object) -> None:
    """Prints a command and runs it; ends with its exit code if it fails."""
    command = ["-m", f"vlbeit_jax.{module}", *(f"--{name}={flags[name]}" for name in flags)]
    print("python", shlex.join(command), flush=True)
    done = subprocess.run([sys.executable, *command])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()

"""Command: writes the report of a run."""

import json

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import run_folder
from vlbeit_jax.places import place

OVERVIEW = """Writes one self-contained page about a run: its figures with their baselines and a
verdict for each, examples of held-out records, curves, data, device, versions, and the settings
with the command that repeats the run. It also writes curves and pictures beside it as PNG files.

  python -m vlbeit_jax.report --from=RUN --results=results.json --out=RUN

RUN is a run of pretraining with any streams, of the visual tokenizer, or of fine-tuning."""

FROM = flags.DEFINE_string("from", None, "workdir of a run, or sample", required=True)
DATA = flags.DEFINE_multi_string(
    "data",
    [],
    "prepared data set whose held-out part is shown; may be repeated; default: those of the run",
)
RESULTS = flags.DEFINE_string(
    "results", None, "file that vlbeit_jax.evaluate wrote; default: the last figures of the log"
)
OUT = flags.DEFINE_string("out", None, "folder for report.html and the pictures", required=True)


def main() -> None:
    """Writes the report and prints its path."""
    from vlbeit_jax.report.page import write_report

    out = place(OUT.value, "--out")
    try:
        results = (
            json.loads(place(RESULTS.value, "--results").read_text()) if RESULTS.value else None
        )
        if not isinstance(results, dict | None):
            raise ValueError(f"{RESULTS.value} holds no JSON object")
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{error}; --results is a file written by vlbeit_jax.evaluate, --out a folder that "
            "can be made"
        ) from error
    print(write_report(run_folder(FROM.value), DATA.value, results, out))


if __name__ == "__main__":
    cli.run(main, OVERVIEW)

"""Command: writes the report of a pretraining run."""

import json
import pathlib

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError

OVERVIEW = """Writes one self-contained page about a pretraining run: curves with their baselines,
use of the codebook, held-back images rebuilt from predicted visual tokens, and guesses of masked
words under the right and a wrong image. The pictures lie beside it as PNG files.

  python -m vlbeit_jax.report --from=RUN --data=sample:pairs --results=results.json --out=RUN"""

FROM = flags.DEFINE_string("from", None, "workdir of a pretraining run", required=True)
DATA = flags.DEFINE_string(
    "data", None, "prepared pairs whose held-back part is shown", required=True
)
RESULTS = flags.DEFINE_string(
    "results", None, "file written by vlbeit_jax.evaluate, shown as a table"
)
OUT = flags.DEFINE_string("out", None, "folder for report.html and the pictures", required=True)


def main() -> None:
    """Writes the report and prints its path."""
    from vlbeit_jax.report.page import write_report
    from vlbeit_jax.runtime.pretrained import open_run

    folder, out = pathlib.Path(FROM.value), pathlib.Path(OUT.value)
    try:
        results = json.loads(pathlib.Path(RESULTS.value).read_text()) if RESULTS.value else None
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{error}; --results is a file written by vlbeit_jax.evaluate, --out a folder that "
            "can be made"
        ) from error
    print(write_report(open_run(folder), folder, DATA.value, results, out))


if __name__ == "__main__":
    cli.run(main, OVERVIEW)

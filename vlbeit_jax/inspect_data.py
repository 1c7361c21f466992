"""Command: a page about the data of a configuration, before a run."""

import dataclasses
import pathlib

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.places import appearing, place, require_writable

OVERVIEW = """Writes one self-contained HTML page about the data of a configuration: the first rows
of each stream exactly as the network sees them, histograms of the records, what was left out and
why, and warnings. It works for any task.

  python -m vlbeit_jax.inspect_data --config=configs/pretrain_base.py --out=data.html \\
      --config.task.image.sources=IMAGES ...      the fields of the run

It needs the tokenizers that the run needs, and trains nothing."""

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
OUT = flags.DEFINE_string("out", "data.html", "file of the page")
ROWS = flags.DEFINE_integer("rows", 12, "rows of each stream that are shown", lower_bound=1)
RECORDS = flags.DEFINE_integer(
    "records", 2000, "records of each set that are measured, evenly spaced", lower_bound=1
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Writes the page and prints its path."""
    out = place(OUT.value, "--out")
    require_writable(out)
    from vlbeit_jax.report.inspection import data_page
    from vlbeit_jax.tasks.new_run import parse_run

    config = parse_run(cli.config_values(CONFIG))
    opened = config.task.resolve().open()
    # Whether there are held-out records is a warning of the page, not an error.
    data = opened.training_data(dataclasses.replace(config.run, evaluate_every=0))
    title = f"Data of {pathlib.Path(cli.typed_config()).name or config.task.kind}"
    page = data_page(title, opened, data, ROWS.value, RECORDS.value)
    with appearing(out) as file:
        file.write(page)
    print(out)


if __name__ == "__main__":
    cli.run(main, OVERVIEW)

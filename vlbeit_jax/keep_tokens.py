"""Command: computes visual tokens once, so that pretraining steps need not."""

import time

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks.new_run import parse_run

OVERVIEW = """Computes the visual tokens of a pretraining run's images once, for all epochs.

  python -m vlbeit_jax.keep_tokens --config=configs/pretrain_base.py \\
      --config.task.visual_tokens=TOKENS \\
      --config.task.image.views=8 --config.task.pair.views=8 \\
      --config.task.image.sources=IMAGES ...
  python -m vlbeit_jax.main --config=configs/pretrain_base.py --workdir=RUN \\
      --config.task.visual_tokens=TOKENS ...      the same fields

Each image has a fixed number of views, drawn from its id, instead of a new view in every epoch. The
command works in parts of 16,384 images and skips the parts that exist. If it was stopped, run it
again: it continues. With --share=0/4 to --share=3/4, four processes divide the parts among them,
each with its own devices."""

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
SHARE = flags.DEFINE_string(
    "share", "0/1", "which share of the parts this process computes, counted from 0, of how many"
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Makes what is missing."""
    values = cli.config_values(CONFIG)
    values["task"]["schedule"] = _image_streams(values["task"].get("schedule", ""))
    config, (mine, of) = parse_run(values), _share()
    from vlbeit_jax.runtime.compilation_cache import use_compilation_cache
    from vlbeit_jax.tasks.token_caching import TokenCacher
    from vlbeit_jax.training.mesh import make_mesh

    use_compilation_cache(config.run.compilation_cache)
    cacher = TokenCacher(
        config, make_mesh(MeshConfig())
    )  # All devices of this machine, whatever mesh the training will have.
    work = cacher.work[mine::of]
    for number, (cached, prepared, part) in enumerate(work, 1):
        where = f"{number}/{len(work)}: {prepared.folder}, part {part} ({cached.folder})"
        if cached.has(part):
            print(f"{where}: is there", flush=True)
            continue
        began = time.monotonic()
        views = cacher.make(cached, prepared, part)
        print(
            f"{where}: {views:,} views, {views / (time.monotonic() - began):,.0f} a second",
            flush=True,
        )
    there = sum(cached.has(part) for cached, _, part in cacher.work)
    rest = (
        "; the others are shares of other processes"
        if there < len(cacher.work)
        else ": train with the same fields"
    )
    print(f"{config.task.visual_tokens}: {there} of {len(cacher.work)} parts are there{rest}")


def _image_streams(schedule: str) -> str:
    """The part of a schedule that has images; texts and their tokenizer are not needed here."""
    steps = [
        [name for name in step.split("+") if name.strip() != "text"] for step in schedule.split(",")
    ]
    return ",".join("+".join(step) for step in steps if step) or schedule


def _share() -> tuple[int, int]:
    mine, _, of = SHARE.value.partition("/")
    if not (mine.isdecimal() and of.isdecimal() and int(mine) < int(of)):
        raise UsageError(f"--share={SHARE.value}: needed is PART/OF with PART < OF, as in 0/4")
    return int(mine), int(of)


if __name__ == "__main__":
    cli.run(main, OVERVIEW)

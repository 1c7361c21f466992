"""Command: what is in the folder of a run, without loading an array."""

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.folders import run_folder

OVERVIEW = """Shows what is in the folder of a run.

  python -m vlbeit_jax.inspect RUN
  python -m vlbeit_jax.inspect RUN --verify

It lists the configuration, every start with its end, where the time went, and every checkpoint with
its size and whether it is damaged. It loads no array, so it is quick. With --verify, it reads every
array and checks its digest. If a step is damaged, the command ends with exit code 66. It needs no
accelerator, and changes nothing."""

VERIFY = flags.DEFINE_bool("verify", False, "read every array, and check its digest")
USAGE = "give the folder of one run: python -m vlbeit_jax.inspect RUN"


def main() -> None:
    """Prints the page."""
    from vlbeit_jax.errors import Damaged, UsageError
    from vlbeit_jax.runtime.run_page import damaged_steps, page

    if not cli.given_places():
        raise UsageError(USAGE)
    folder = run_folder(cli.given_places()[0])
    damages = damaged_steps(folder, arrays=VERIFY.value)
    print(page(folder, damages))
    if wrong := {step: what for step, what in damages.items() if what}:
        raise Damaged(f"{folder}: damaged: {', '.join(f'step {step}' for step in wrong)}")


if __name__ == "__main__":
    cli.run(main, OVERVIEW, places=1)

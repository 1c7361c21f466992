"""Command: whether this machine can train, on one screen."""

import functools
from collections.abc import Callable

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import Exit, Reported
from vlbeit_jax.places import place
from vlbeit_jax.redact import redacted

OVERVIEW = """Checks whether this machine can train, and says on one screen what is wrong.

  python -m vlbeit_jax.doctor
  python -m vlbeit_jax.doctor --workdir=RUN --data=data/pairs,data/tokens

It looks at versions and devices, multiplies two matrices in bfloat16, takes one step of a tiny
network, and looks at /dev/shm. With --workdir, it measures room and speed of its disk; with --data,
it opens prepared sets and reads records at their ends. It leaves nothing behind. The exit code is 0
if all is well, and otherwise that of the first thing that is wrong (docs/launch.md)."""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run, which need not exist")
DATA = flags.DEFINE_list("data", [], "prepared sets, separated by commas")
WIDTH = 10  # Characters of the names.


class Unwell(Reported):
    """Something is wrong. Its code is that of the first thing."""

    def __init__(self, message: str, code: Exit):
        """Takes the message and the exit code."""
        super().__init__(message)
        self.code = code


def checks() -> dict[str, Callable[[], str]]:
    """Returns the checks that the flags ask for, by name."""
    from vlbeit_jax.runtime import health

    def on_devices(name: str) -> Callable[[], str]:
        def check() -> str:
            # JAX, which it imports, may be what is broken.
            from vlbeit_jax.runtime import device_checks

            return getattr(device_checks, name)()

        return check

    by_name = {
        "versions": health.versions,
        "host": health.processor,
        "devices": on_devices("found_devices"),
        "bfloat16": on_devices("product"),
        "step": on_devices("tiny_step"),
        "/dev/shm": health.shared_memory,
    }
    if WORKDIR.value:
        by_name["workdir"] = functools.partial(health.workdir, place(WORKDIR.value, "--workdir"))
    for number, folder in enumerate(DATA.value):
        name = f"data {number + 1}" if len(DATA.value) > 1 else "data"
        by_name[name] = functools.partial(health.data_set, folder)
    return by_name


def main() -> None:
    """Prints a line for each check, and at the end what is wrong.

    Raises:
      Unwell: something is wrong.
    """
    from vlbeit_jax.runtime.health import examine

    wrong = []
    for finding in examine(checks()):
        mark = "wrong: " if finding.code else ""
        line = f"{finding.name:{WIDTH}} {mark}{finding.said}"
        print(redacted(line + (f" ({finding.seconds:.0f} s)" if finding.seconds >= 1 else "")))
        wrong += [finding] if finding.code else []
    if wrong:
        names = ", ".join(finding.name for finding in wrong)
        raise Unwell(f"something is wrong: {names}; the lines above say what to do", wrong[0].code)
    print("nothing is wrong")


if __name__ == "__main__":
    cli.run(main, OVERVIEW)

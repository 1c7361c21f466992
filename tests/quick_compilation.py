"""XLA flags that make compilation quick, as far as this jaxlib knows them.

XLA ends the process at a flag that it does not know, and flags come and go with its releases. So a process of its own tries them.
"""

import os
import subprocess
import sys

WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
# Tests are small: compiling is what takes time. Emitters of fusions alone are half of it where they can be left out.
FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    WITHOUT_FUSION_EMITTERS,
)
REMEMBERED = "VLBEIT_TESTS_KNOWN_XLA_FLAGS"


def known_flags(flags: tuple[str, ...] = FLAGS) -> tuple[str, ...]:
    """Those of the flags that this jaxlib takes. Processes that this one starts do not try again."""
    if REMEMBERED not in os.environ:
        known = (
            flags if _starts_with(flags) else tuple(flag for flag in flags if _starts_with((flag,)))
        )
        os.environ[REMEMBERED] = " ".join(known)
    return tuple(os.environ[REMEMBERED].split())


def _starts_with(flags: tuple[str, ...]) -> bool:
    """Whether JAX finds its CPU with these flags. They are read when it does, not when it is imported."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    return (
        subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=environment,
            capture_output=True,
        ).returncode
        == 0
    )

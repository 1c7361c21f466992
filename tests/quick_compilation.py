"""XLA flags that make compilation quick, as far as this jaxlib knows them.

XLA ends the process at an unknown flag, and each release adds and removes flags. So the flags are
tried in another process.
"""

import os
import subprocess
import sys

WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
# The tests' networks are small, so most of the time is compilation. Leaving out the fusion emitters
# halves it.
BASIC = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    WITHOUT_FUSION_EMITTERS,
)
# The preset leaves out passes that only make programs faster: a train step compiles in half the CPU
# time. What the other flags leave out is of use to LLVM's optimizer and to many cores.
FAST_COMPILE = (
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_llvm_enable_alias_scope_metadata=false",
    "--xla_llvm_enable_noalias_metadata=false",
    "--xla_llvm_enable_invariant_load_metadata=false",
)
FLAGS = (*BASIC, *FAST_COMPILE)
REMEMBERED = "VLBEIT_TESTS_KNOWN_XLA_FLAGS"


def known_flags(flags: tuple[str, ...] = FLAGS) -> tuple[str, ...]:
    """Returns the flags that this jaxlib accepts; child processes inherit the answer."""
    if REMEMBERED not in os.environ:
        known = (
            flags if _starts_with(flags) else tuple(flag for flag in flags if _starts_with((flag,)))
        )
        os.environ[REMEMBERED] = " ".join(known)
    return tuple(os.environ[REMEMBERED].split())


def _starts_with(flags: tuple[str, ...]) -> bool:
    """Whether JAX accepts these flags; it reads them when it looks for devices, not on import."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    return (
        subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=environment,
            capture_output=True,
        ).returncode
        == 0
    )

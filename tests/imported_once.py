"""What commands import: the server of ``tests.processes`` does it once, for all of them.

None of these modules defines a flag of a command, looks for devices or starts a thread.
"""

import contextlib
import gc
import importlib

LIBRARIES = (
    "flax.linen",
    "grain",
    "matplotlib.pyplot",
    "optax",
    "orbax.checkpoint",
    "tensorflow_datasets",
    "torch",
    "vlbeit_jax.convert.formats",
    "vlbeit_jax.report.figures",
    "vlbeit_jax.runtime.start",
)

for library in LIBRARIES:
    with contextlib.suppress(ModuleNotFoundError):  # PyTorch is optional.
        importlib.import_module(library)
# A collection in a fork would copy the pages of all that was imported.
gc.freeze()

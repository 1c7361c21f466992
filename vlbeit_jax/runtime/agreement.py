"""A number on which all processes agree at every step, without waiting for it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlbeit_jax.training.mesh import replicated


class Agreement:
    """The largest number that any process gave.

    Of several processes, each call returns the answer of the call before, which the devices have
    computed in the meantime. So all processes get a number in the same call.
    """

    def __init__(self, mesh: Mesh):
        """Every process must make the same calls, between the same programs on ``mesh``."""
        self._own = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._max = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._mesh, self._last = mesh, None

    def __call__(self, own: int) -> int:
        """Returns what all processes agree on, given this one's number, at least 0."""
        if jax.process_count() == 1:
            return own
        before, self._last = self._last, self._largest(own)
        return 0 if before is None else int(before)

    def now(self, own: int) -> int:
        """Returns the answer of this call, for which it waits until the devices are free."""
        return own if jax.process_count() == 1 else int(self._largest(own))

    def _largest(self, own: int) -> jax.Array:
        rows = np.full(len(self._mesh.local_devices), own, np.int32)
        return self._max(jax.make_array_from_process_local_data(self._own, rows))

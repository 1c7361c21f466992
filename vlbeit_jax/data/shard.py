"""Which rows of a global batch a host reads."""

import dataclasses

from vlbeit_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class HostShard:
    """The part of every batch that one host reads, because its devices hold those rows.

    A batch is cut into ``of`` equal blocks. With tensor parallelism several hosts hold, and read,
    the same block. On a torus a host's blocks need not be neighbours.

    Attributes:
      blocks: this host's blocks, in rising order.
      of: number of blocks in a batch.
    """

    blocks: tuple[int, ...] = (0,)
    of: int = 1

    def num_rows(self, batch_size: int) -> int:
        """Returns how many rows of a global batch this host reads.

        Raises:
          UsageError: the batch cannot be cut into equal blocks.
        """
        if batch_size % self.of:
            raise UsageError(
                f"batch_size={batch_size} cannot be cut into {self.of} equal blocks, one for each "
                f"place along mesh.data and mesh.fsdp; set the stream's batch_size to a multiple "
                f"of {self.of}"
            )
        return batch_size // self.of * len(self.blocks)

    def rows(self, batch_size: int) -> list[int]:
        """Returns which rows of a global batch this host reads, in order."""
        size = self.num_rows(batch_size) // len(self.blocks)
        return [block * size + row for block in self.blocks for row in range(size)]

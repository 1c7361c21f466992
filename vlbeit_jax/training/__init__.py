"""State, step, optimizer, sharding, schedule, checkpoints.

- The step: ``step`` puts it together; ``gradients`` sums those of a stream, ``per_chip`` those of
  all devices; ``optimizer`` and ``guard`` make the update. ``schedule`` says which streams a step
  has.
- What it changes: ``state``; ``trainable`` parts trees by what is trained; ``mesh`` lays them out
  on devices; ``param_names`` names their leaves.
- Checkpoints: ``checkpoint`` writes and reads them, ``saved_step`` is one of them, ``leaves`` a
  tree in it; ``digest`` and ``sealed`` show damage; ``complete_steps`` and ``saved_run`` look into
  folders.
- A start from another run: ``warm_start`` plans it, by ``adapters`` where shapes differ;
  ``start_from`` does it, ``start_report`` says what became of each parameter.
"""

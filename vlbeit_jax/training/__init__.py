"""State, step, optimizer, sharding, schedule, checkpoints."""

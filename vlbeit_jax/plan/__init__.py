"""What a run will need, before it starts: memory, step time and cost as the compiler of a TPU sees them."""

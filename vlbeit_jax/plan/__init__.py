"""What a run will need, before it starts: memory, step time and cost."""

"""What a run will need, before it starts: memory, step time, cost, and the size of /dev/shm."""

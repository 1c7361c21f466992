"""Operations of a train step, and how many a device can do in a second."""

"""What a train step costs: operations from shapes, and time and memory as the compiler of a TPU sees them."""

"""What is minimised, stream by stream."""

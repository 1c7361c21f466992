"""What pretraining on the sample is worth: the same task from a pretrained and a random start."""

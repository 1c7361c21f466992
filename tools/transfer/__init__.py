"""Measures what the sample's pretraining is worth: tasks from a pretrained and a random start."""

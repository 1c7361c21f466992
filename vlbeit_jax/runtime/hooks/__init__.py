"""What happens around the steps of a run, one file per hook."""

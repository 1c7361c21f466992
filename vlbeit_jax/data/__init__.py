"""From records to batches: prepared sets, text, images, masks, Grain. Imports no JAX."""

"""From records to batches: prepared sets, text, images, masks, Grain. Computes in NumPy alone."""

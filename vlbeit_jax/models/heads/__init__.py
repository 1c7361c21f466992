"""From states to logits and embeddings: one file per kind of head."""

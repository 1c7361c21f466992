"""Making data sets and text tokenizers."""

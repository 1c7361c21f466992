"""Names of what a run keeps of its inputs, in its own folder."""

TEXT_TOKENIZER, VISUAL_TOKENIZER = "text_tokenizer", "visual_tokenizer"

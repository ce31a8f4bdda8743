"""The arithmetic: a Hugging Face model, unchanged, that reads and writes KV where it is told to."""

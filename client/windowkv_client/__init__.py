"""The Python SDK of windowkv: cache a document once, ask it many times. Loads no torch, numpy or redis."""

"""One prefill, many choices: questions about a cached document, put to the model's own arithmetic outside the engine.

Everything that could be read of a document lies in memory, so that any way to choose can be tried: windows of any
size, lists per KV head, single tokens, digests. What is tried here and wins is then built into the service.
"""

"""The tensors: how KV is laid out, allocated, quantized and turned into bytes."""

"""The worker: prefills prompts, compresses their KV cache, keeps it in tiers and decodes from it over gRPC."""

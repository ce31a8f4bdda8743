"""The books: which prompt's bytes are where, and the tiers that keep them. Plain Python, no tensors."""

"""The contract of windowkv: protobuf packages with their generated, committed stubs (`make proto`)."""

"""The wire: gRPC in and out. Only this room knows messages, statuses, metadata. Its door: server.Server."""

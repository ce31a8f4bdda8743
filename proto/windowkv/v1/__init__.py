"""Version 1 of the wire: messages in `*_pb2`, stubs and servicers in `*_pb2_grpc`."""

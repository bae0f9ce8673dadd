"""The dispatcher: policy, upstream calls and accounting behind one gRPC service."""

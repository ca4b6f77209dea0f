"""gRPC, whatever is spoken by it: descriptors in pools of our own, the seam to the host, health and reflection."""

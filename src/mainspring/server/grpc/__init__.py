"""The gRPC side of the process: one listener for the services of every protocol."""

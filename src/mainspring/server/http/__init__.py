"""The wire side of the process: listeners, connections, callers, and which protocols are on."""

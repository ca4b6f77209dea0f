"""What vector stores share above their port: what comes in is checked, ranks are fused, folders have owners."""

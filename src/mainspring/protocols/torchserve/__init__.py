"""TorchServe's inference and management."""

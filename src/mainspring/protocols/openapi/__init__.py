"""The OpenAPI description of an app's own routes."""

"""Amazon SageMaker's container contract."""

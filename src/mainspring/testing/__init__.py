"""What users import in their tests, and the contract suites that adapters run."""

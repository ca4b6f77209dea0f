"""Training sets, trainers, evaluation, conversion, versions and the promotion gate."""

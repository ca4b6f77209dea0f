"""Window aggregates of a log at given moments: which rows count, two kernels, and the choice between them."""

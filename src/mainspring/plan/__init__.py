"""Declarations to one typed graph: edges, schemas, fingerprints, order, the difference of two plans. Pure."""

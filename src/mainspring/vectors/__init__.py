"""What every vector store shares: filters and their rules, ranks that are fused, vectors that are checked, folders."""

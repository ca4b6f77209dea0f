"""What the wires of language models share: who asks, how faults become statuses, and their routes together."""

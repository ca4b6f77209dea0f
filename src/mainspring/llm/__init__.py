"""The LLM gateway: keys, limits, routing, guards, cost and traces around the engines' event stream."""

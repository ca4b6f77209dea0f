"""Assistants: LangChain agents over our gateway, their tools, threads, runs, citations and evaluation."""

"""LangChain's own suites; they are run by tests/contract/test_langchain.py in a process of their own."""

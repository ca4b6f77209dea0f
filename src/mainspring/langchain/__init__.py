"""Mainspring for any LangChain program: chat model, embeddings, vector store, retriever, checkpointer.

Each keeps LangChain's own contract for its kind; none opens a socket that its part of Mainspring would not open.
"""

from mainspring.assistants.chat import ChatMainspring
from mainspring.assistants.checkpointer import MainspringCheckpointer
from mainspring.langchain.embeddings import MainspringEmbeddings
from mainspring.langchain.retriever import MainspringRetriever
from mainspring.langchain.vector_store import MainspringVectorStore

__all__ = [
    "ChatMainspring",
    "MainspringCheckpointer",
    "MainspringEmbeddings",
    "MainspringRetriever",
    "MainspringVectorStore",
]

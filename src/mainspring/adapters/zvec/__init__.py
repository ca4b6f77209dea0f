"""Vectors in zvec inside the process: the cheaper graph to build, words by BM25 without stop words."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="vectors",
    name="zvec",
    factory="mainspring.adapters.zvec.vector_store:open_store",
    settings="mainspring.adapters.zvec.settings:ZvecSettings",
    embedded=True,
    modules=("zvec", "numpy"),
    extra="zvec",
    order=200,
    capabilities={"full_text": "bm25", "sparse": False, "writers": "one", "durability": "process_crash"},
)

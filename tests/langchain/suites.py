"""LangChain's standard suites against our classes."""

import base64
import hashlib
import re
from types import SimpleNamespace

import httpx
import numpy as np
import orjson
import pytest
from langchain_core.documents import Document
from langchain_tests.integration_tests import (
    ChatModelIntegrationTests,
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store as open_qdrant
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.adapters.zvec.vector_store import open_store as open_zvec
from mainspring.langchain import ChatMainspring, MainspringEmbeddings, MainspringRetriever, MainspringVectorStore
from mainspring.testing import Call, Script
from mainspring.testing.library import Library, Page

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class HashEmbedder:
    """Words hashed into a small vector of length 1: equal texts have equal vectors, and others hardly ever."""

    id, dims, max_tokens, normalised, tokenizer = "hash", 32, 256, True, ""

    def count(self, texts):
        return [len(text.split()) for text in texts]

    def embed_documents(self, texts):
        return np.array([self.embed_query(text) for text in texts], np.float32).reshape(-1, self.dims)

    def embed_query(self, text):
        vector = np.full(self.dims, 1e-3, np.float32)
        for word in re.findall(r"\w+", text.lower()):
            for byte in hashlib.blake2b(word.encode(), digest_size=4).digest():
                vector[byte % self.dims] += 1
        return vector / np.linalg.norm(vector)

    def close(self):
        """Nothing to let go of."""


# -- chat model -------------------------------------------------------------------------------------------------------


def filled(schema, text, place=0):
    """Values that fit a schema: the numbers of the text in their order, and what it quotes."""
    numbers = [int(number) for number in re.findall(r"\d+", text)] or [1]
    schema = schema.get("anyOf", [schema])[0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        parts = schema.get("properties", {})
        return {name: filled(part, text, place) for place, (name, part) in enumerate(parts.items())}
    if schema.get("type") == "array":
        return [filled(schema.get("items", {}), text)]
    if schema.get("type") in ("integer", "number"):
        return numbers[place % len(numbers)]
    return next(iter(re.findall(r"'([^']+)'", text)), "some words")


def model(request):
    """A model with manners: it calls the tool that fits, fills schemas in, and stops where it is told."""
    last = request.messages[-1].text
    answered = request.messages[-1].role == "tool"
    if request.schema is not None:
        schema = dict(request.schema.schema or {"type": "object", "properties": {"setup": {}, "punchline": {}}})
        return orjson.dumps(filled(inlined(schema), last)).decode()
    if request.tools and not answered and request.choice.mode != "none":
        named = [tool for tool in request.tools if tool.name == request.choice.name]
        tool = (named or list(request.tools))[0]
        return Call(tool.name, filled(inlined(dict(tool.parameters)), last))
    words = "one two three four five six seven eight nine ten eleven twelve done"
    for stop in request.sampling.stop:
        words = words.partition(stop)[0]
    return words


def inlined(schema):
    text = {**schema}
    definitions = text.pop("$defs", {})
    if "$ref" in text:
        return inlined({**definitions[text["$ref"].rpartition("/")[2]], "$defs": definitions})
    if "properties" in text:
        text["properties"] = {
            name: inlined({**value, "$defs": definitions}) for name, value in text["properties"].items()
        }
    return text


class _Chat:
    @property
    def chat_model_class(self):
        return ChatMainspring

    @property
    def chat_model_params(self):
        return {"model": "chat", "generate": Script(model).generate}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_image_inputs(self):
        return True

    @property
    def supports_image_tool_message(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return "other"


class TestChatUnit(_Chat, ChatModelUnitTests):
    """Shape: parameters, binding, structured output."""


class TestChat(_Chat, ChatModelIntegrationTests):
    """Calls, over a model with manners."""

    @pytest.fixture(autouse=True)
    def _picture(self, monkeypatch):
        """The suite fetches its picture from the web."""
        monkeypatch.setattr(httpx, "get", lambda *asked, **how: SimpleNamespace(content=PNG))


# -- embeddings -------------------------------------------------------------------------------------------------------


class _Embeddings:
    @property
    def embeddings_class(self):
        return MainspringEmbeddings

    @property
    def embedding_model_params(self):
        return {"embedder": HashEmbedder()}


class TestEmbeddingsUnit(_Embeddings, EmbeddingsUnitTests):
    """Shape."""


class TestEmbeddings(_Embeddings, EmbeddingsIntegrationTests):
    """Calls."""


# -- vector stores ----------------------------------------------------------------------------------------------------


class _Store(VectorStoreIntegrationTests):
    """Over a real embedded engine."""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        store = self.opened(tmp_path)
        yield MainspringVectorStore(store, self.get_embeddings(), "docs", fields={"year": "integer"})
        store.close()

    def test_what_langchain_promises_beyond_its_suite(self, vectorstore):
        texts = ["red apple pie", "green apple pie", "blue sea water", "deep sea water"]
        ids = vectorstore.add_texts(texts, [{"year": year} for year in (1, 2, 3, 4)], ids=["a", "b", "c", "d"])
        assert ids == ["a", "b", "c", "d"]
        vectorstore = MainspringVectorStore(
            vectorstore._store, MainspringEmbeddings(HashEmbedder()), "more", fields={"year": "integer"}
        )
        vectorstore.add_texts(texts, [{"year": year, "odd": {"x": [1]}} for year in (1, 2, 3, 4)], ids=ids)
        (found, score), *_ = vectorstore.similarity_search_with_score("red apple pie", k=2)
        assert (found.id, found.metadata) == ("a", {"year": 1, "odd": {"x": [1]}})
        assert score == pytest.approx(1, abs=0.02)
        assert vectorstore.similarity_search_with_relevance_scores("red apple pie", k=1)[0][1] == pytest.approx(
            1, abs=0.02
        )
        newer = {"range": ["metadata.year", {"gte": 2}]}
        assert vectorstore.similarity_search("red apple pie", k=1, filter=newer)[0].id == "b"
        vector = vectorstore.embeddings.embed_query("deep sea water")
        assert vectorstore.similarity_search_by_vector(vector, k=1)[0].id == "d"
        assert {one.id for one in vectorstore.similarity_search("sea", k=2, mode="hybrid")} == {"c", "d"}
        diverse = vectorstore.max_marginal_relevance_search("red apple pie", k=2, fetch_k=4, lambda_mult=0.1)
        assert diverse[0].id == "a"
        assert diverse[1].id in ("c", "d")
        assert [one.id for one in vectorstore.get_by_ids(["d", "nobody", "a"])] == ["d", "a"]
        assert vectorstore.delete()
        assert vectorstore.similarity_search("sea", k=2) == []
        made = MainspringVectorStore.from_texts(
            ["x"], vectorstore.embeddings, store=vectorstore._store, index="made", ids=["i"]
        )
        assert made.as_retriever().invoke("x") == [Document("x", id="i")]


class TestQdrantEdge(_Store):
    """The default."""

    def opened(self, place):
        return open_qdrant(QdrantEdgeSettings(), place)


class TestZvec(_Store):
    """The second."""

    def opened(self, place):
        return open_zvec(ZvecSettings(), place)


# -- retriever --------------------------------------------------------------------------------------------------------

LIBRARY = Library([Page(f"pages/{number}.md", f"A page about goods, number {number}.") for number in range(5)])


class TestRetriever(RetrieversIntegrationTests):
    """Over an index in memory."""

    @property
    def retriever_constructor(self):
        return MainspringRetriever

    @property
    def retriever_constructor_params(self):
        return {"searcher": LIBRARY, "k": 2}

    @property
    def retriever_query_example(self):
        return "goods"

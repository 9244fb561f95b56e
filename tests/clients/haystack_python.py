"""Haystack against a running embedgate: its OpenAI components, and those for text-embeddings-inference.

    python haystack_python.py URL
"""

import asyncio

import httpx
import openai
from check import DOCUMENTS, MODEL, QUERY, TEXTS, URL, expect, far, plain, ranking, refused, same, same_ranking
from haystack import Document, Pipeline
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
    HuggingFaceTEISparseTextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

server = {"api_base_url": f"{URL}/v1", "api_key": Secret.from_token("any-key"), "model": MODEL, "max_retries": 0}


def documents(texts: list) -> list:
    return [Document(id=str(i), content=text) for i, text in enumerate(texts)]


def vectors(answer: dict) -> list:
    return [document.embedding for document in answer["documents"]]


embedder = OpenAIDocumentEmbedder(**server, progress_bar=False, raise_on_failure=True)
answer = embedder.run(documents=documents(TEXTS))
same("documents", vectors(answer), TEXTS)
expect(answer["meta"]["usage"]["total_tokens"] > 0, answer["meta"])
# 32 documents a request.
many = [f"text number {i}" for i in range(100)]
same("many documents", vectors(embedder.run(documents=documents(many))), many)
answer = OpenAITextEmbedder(**server, prefix="query: ").run(text="cats")
same("a query with a prefix", [answer["embedding"]], ["query: cats"])
answer = OpenAITextEmbedder(**server, dimensions=64).run(text="cats")
same("dimensions", [answer["embedding"]], ["cats"], dimensions=64)

# What it is for: the text that answers the question is found.
store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
store.write_documents(embedder.run(documents=documents(["Berlin lies in Germany.", "Cats sleep a lot."]))["documents"])
pipeline = Pipeline()
pipeline.add_component("embedder", OpenAITextEmbedder(**server))
pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
pipeline.connect("embedder.embedding", "retriever.query_embedding")
found = pipeline.run({"embedder": {"text": "Where is Berlin?"}})["retriever"]["documents"]
expect([document.content for document in found] == ["Berlin lies in Germany."], found)

nope = OpenAITextEmbedder(**{**server, "model": "nope"})
refused("another model", openai.NotFoundError, 'model "nope"', lambda: nope.run(text="a"))

# text-embeddings-inference: no model is named, so it is the default one that answers.
tei = {"api_type": "text_embeddings_inference", "api_params": {"url": URL}, "token": None}
answer = HuggingFaceAPIDocumentEmbedder(**tei, normalize=True, progress_bar=False).run(documents=documents(TEXTS))
same("documents by text-embeddings-inference", vectors(answer), TEXTS)
answer = HuggingFaceAPITextEmbedder(**tei, normalize=True).run(text=TEXTS[1])
same("a query by text-embeddings-inference", [answer["embedding"]], TEXTS[1:2])
# When left alone it asks for vectors that are not normalized.
answer = HuggingFaceAPITextEmbedder(**tei).run(text=TEXTS[1])
expect(far(answer["embedding"], plain([TEXTS[1]], normalized=False)[0]) < 1e-6, "normalize=False")

# Where no model is named, the only cross-encoder there is reranks.
ranker = HuggingFaceTEIRanker(url=URL, top_k=2, max_retries=1, token=None)
answer = ranker.run(query=QUERY, documents=documents(DOCUMENTS))
same_ranking("ranker", [(int(document.id), document.score) for document in answer["documents"]], ranking()[:2])


async def asynchronously() -> None:
    same("documents, asynchronously", vectors(await embedder.run_async(documents=documents(TEXTS))), TEXTS)
    answer = await ranker.run_async(query=QUERY, documents=documents(DOCUMENTS))
    same_ranking("ranker, asynchronously", [(int(one.id), one.score) for one in answer["documents"]], ranking()[:2])


asyncio.run(asynchronously())

# The default model gives no sparse vectors, and the error says so.
sparse = HuggingFaceTEISparseTextEmbedder(api_base_url=URL, token=None)
error = refused("sparse vectors of a model without them", httpx.HTTPStatusError, "422", lambda: sparse.run(text="a"))
expect("sparse" in error.response.json()["error"], error.response.text)

print("ok")

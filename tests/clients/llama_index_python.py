"""LlamaIndex against a running embedgate: OpenAI-like, and its parts for text-embeddings-inference and Jina.

    python llama_index_python.py URL
"""

import asyncio

import openai
from check import DOCUMENTS, M3, MODEL, QUERY, RERANKER, TEXTS, URL, expect, ranking, refused, same, same_ranking
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference as TeiRerank


def openai_like(model: str = MODEL, **more: object) -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name=model, api_base=f"{URL}/v1", api_key="any-key", **more)


embedding = openai_like()
# 10 texts a request; it sends a space in place of a new line, and refuses empty texts by itself.
texts = [text for text in TEXTS if text.strip()]
same("a batch", embedding.get_text_embedding_batch(texts), texts)
many = [f"text number {i}" for i in range(205)]
same("many texts", openai_like(embed_batch_size=100).get_text_embedding_batch(many), many)
same("one text", [embedding.get_text_embedding(texts[1])], texts[1:2])
same("a query", [embedding.get_query_embedding(texts[1])], texts[1:2])
same("dimensions", openai_like(dimensions=64).get_text_embedding_batch(texts), texts, dimensions=64)
same("another model", openai_like(M3).get_text_embedding_batch(texts), texts, M3)


async def asynchronously() -> None:
    same("asynchronously", await openai_like(num_workers=4).aget_text_embedding_batch(texts), texts)
    same("a query, asynchronously", [await openai_like().aget_query_embedding(texts[0])], texts[:1])


asyncio.run(asynchronously())
nope = openai_like("nope", max_retries=0)
refused("no such model", openai.NotFoundError, 'model "nope"', lambda: nope.get_text_embedding("a"))

# What it is for: the text that answers the question is found.
nodes = [TextNode(text=text) for text in ["Berlin lies in Germany.", "Cats sleep a lot."]]
index = VectorStoreIndex(nodes, embed_model=embedding)
[found] = index.as_retriever(similarity_top_k=1).retrieve("Where is Berlin?")
expect(found.node.text == "Berlin lies in Germany.", found)

# text-embeddings-inference: no model is named, so it is the default one that answers. The name given is the package's own
# to know which instructions to put in front.
tei = TextEmbeddingsInference(model_name=MODEL, base_url=URL)
same("a batch by text-embeddings-inference", tei.get_text_embedding_batch(texts), texts)
same("a query by text-embeddings-inference", [tei.get_query_embedding(texts[1])], texts[1:2])
same("text-embeddings-inference, asynchronously", asyncio.run(tei.aget_text_embedding_batch(texts)), texts)


def rerank(reranker: object) -> list:
    """Index and score of the documents, best first."""
    nodes = [NodeWithScore(node=TextNode(id_=str(i), text=text)) for i, text in enumerate(DOCUMENTS)]
    return [(int(one.node.node_id), one.score) for one in reranker.postprocess_nodes(nodes, QueryBundle(QUERY))]


jina = {"base_url": f"{URL}/v1", "api_key": "any-key"}
for model in [RERANKER, M3]:
    same_ranking("JinaRerank", rerank(JinaRerank(top_n=3, model=model, **jina)), ranking(model))
same_ranking("JinaRerank's top_n", rerank(JinaRerank(top_n=1, model=RERANKER, **jina)), ranking()[:1])
same_ranking("text-embeddings-inference's reranking", rerank(TeiRerank(base_url=URL, top_n=2)), ranking()[:2])
# It shows its users what Jina's API calls the detail of an error.
refused("reranking by no such model", RuntimeError, 'model "nope"', lambda: rerank(JinaRerank(model="nope", **jina)))

print("ok")

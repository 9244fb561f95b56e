"""litellm against a running embedgate, by its providers that take a base URL: python litellm_python.py URL."""

import asyncio

import litellm
from check import DOCUMENTS, M3, MODEL, QUERY, RERANKER, TEXTS, URL, expect, ranking, refused, same, same_ranking

# Else it prints advice where the test looks for "ok".
litellm.suppress_debug_info = True

# The base URL that each provider wants.
EMBEDDING = {
    "openai": f"{URL}/v1",
    "hosted_vllm": f"{URL}/v1",
    "lm_studio": f"{URL}/v1",
    "xinference": f"{URL}/v1",
    "infinity": f"{URL}/v1",
    "jina_ai": f"{URL}/v1",
    "cohere": f"{URL}/v2/embed",
    "ollama": URL,
}
# Those that pass dimensions on.
DIMENSIONS = ["hosted_vllm", "xinference", "infinity", "jina_ai", "cohere", "ollama"]


def vectors(answer: litellm.EmbeddingResponse) -> list:
    expect([item["index"] for item in answer.data] == list(range(len(answer.data))), "indices in order")
    return [item["embedding"] for item in answer.data]


for provider, base in EMBEDDING.items():
    server = {"api_base": base, "api_key": "any-key", "max_retries": 0}
    # litellm says for its callers that what it sends Cohere are documents.
    more = {"prompt_name": "document"} if provider == "cohere" else {}
    answer = litellm.embedding(f"{provider}/{MODEL}", input=TEXTS, **server)
    same(provider, vectors(answer), TEXTS, **more)
    expect(answer.usage.prompt_tokens == answer.usage.total_tokens > 0, f"{provider}: {answer.usage}")
    answer = asyncio.run(litellm.aembedding(f"{provider}/{M3}", input=TEXTS, **server))
    same(f"{provider}, asynchronously", vectors(answer), TEXTS, M3)
    if provider in DIMENSIONS:
        answer = litellm.embedding(f"{provider}/{MODEL}", input=TEXTS, dimensions=64, **server)
        same(f"{provider} with dimensions", vectors(answer), TEXTS, dimensions=64, **more)
    refused(
        f"no such model by {provider}",
        litellm.NotFoundError,
        "there is no model",
        lambda: litellm.embedding(f"{provider}/nope", input=["a"], **server),
    )

# text-embeddings-inference has one model, here the default one. Without the type litellm asks a hub what the model is for.
answer = litellm.embedding(f"huggingface/{MODEL}", input=TEXTS, input_type="embed", api_base=URL, api_key="any-key")
same("huggingface", vectors(answer), TEXTS)


def pairs(answer: litellm.RerankResponse) -> list:
    return [(one["index"], one["relevance_score"]) for one in answer.results]


# infinity answers documents as strings, the others as objects: litellm's provider of that name takes no objects.
for provider in ["cohere", "jina_ai", "infinity", "hosted_vllm", "huggingface"]:
    with_documents = provider != "infinity"
    arguments = {"query": QUERY, "documents": DOCUMENTS, "api_base": URL, "api_key": "any-key"}
    answer = litellm.rerank(f"{provider}/{RERANKER}", top_n=2, return_documents=with_documents, **arguments)
    same_ranking(f"rerank by {provider}", pairs(answer), ranking()[:2])
    if with_documents:
        texts = [one["document"]["text"] for one in answer.results]
        expect(texts == [DOCUMENTS[i] for i, _ in ranking()[:2]], f"{provider}: {texts}")
    answer = asyncio.run(litellm.arerank(f"{provider}/{RERANKER}", return_documents=False, **arguments))
    same_ranking(f"rerank by {provider}, asynchronously", pairs(answer), ranking())
    # text-embeddings-inference is told no model's name.
    if provider != "huggingface":
        refused(
            f"rerank by no such model by {provider}",
            litellm.NotFoundError,
            "there is no model",
            lambda: litellm.rerank(f"{provider}/nope", **arguments),
        )

print("ok")

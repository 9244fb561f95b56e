"""All three outputs of bge-m3 in one request, and the score by all three, with nothing to install.

    python bge_m3_hybrid.py [URL [MODEL]]        with a bge-m3 of your config (config/bge-m3.toml has one)

The same score comes from reranking with the model, which the last column shows. Use the parts to search: dense and sparse
vectors as Qdrant, Milvus or Elasticsearch take them, ColBERT for what was found.
"""

import json
import sys
import urllib.request

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "bge-m3-local"
question = "What is BGE M3?"
texts = ["BGE M3 is an embedding model for many languages.", "BM25 ranks documents by the words in them.", "It rains."]


def post(path: str, body: dict) -> dict:
    # With keys in the config: "Authorization": "Bearer KEY".
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def product(a: list, b: list) -> float:
    return sum(x * y for x, y in zip(a, b))


def score(query: dict, document: dict) -> tuple:
    """What each output says, all of vectors of length 1, and their mean."""
    dense = product(query["embedding"], document["embedding"])
    weights = [dict(zip(one["indices"], one["values"])) for one in (query["sparse_embedding"], document["sparse_embedding"])]
    sparse = sum(weight * weights[1].get(token, 0.0) for token, weight in weights[0].items())
    rows, others = query["colbert_embedding"], document["colbert_embedding"]
    colbert = sum(max(product(row, other) for other in others) for row in rows) / len(rows)
    return dense, sparse, colbert, (dense + sparse + colbert) / 3


request = {"model": model, "input": [question, *texts], "outputs": ["dense", "sparse", "colbert"]}
query, *documents = post("/v1/embeddings", request)["data"]
# Without raw_scores a score is within 0 and 1.
ranked = post("/rerank", {"model": model, "query": question, "texts": texts, "raw_scores": True})
own = {one["index"]: one["score"] for one in ranked}

print("dense    sparse   ColBERT  mean     reranked")
for i, text in enumerate(texts):
    print("  ".join(f"{x:7.4f}" for x in (*score(query, documents[i]), own[i])), "", text)

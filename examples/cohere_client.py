"""The cohere package: pip install "cohere>=7,<8"

    python cohere_client.py [URL [MODEL [RERANKER]]]

With the demo (scripts/demo), or any models of your config. RERANKER may be an embedding model too, as it is for the demo.
input_type puts the model's prompts for queries and documents in front, where it has such.
"""

import sys

import cohere

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"
reranker = sys.argv[3] if len(sys.argv) > 3 else model
client = cohere.ClientV2(base_url=url, api_key="any-key")
texts = ["Forgot my login, what now?", "The weather in Shanghai is hot today.", "Rice takes 20 minutes."]

answer = client.embed(model=model, texts=texts, input_type="search_document", embedding_types=["float", "ubinary"])
print(f"{len(answer.embeddings.float_[0])} numbers, or {len(answer.embeddings.ubinary[0])} bytes")

answer = client.rerank(model=reranker, query="How do I reset my password?", documents=texts, top_n=2)
for result in answer.results:
    print(f"{result.relevance_score:.3f}  {texts[result.index]}")

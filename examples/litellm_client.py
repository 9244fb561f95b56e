"""embedgate behind litellm: pip install "litellm>=1,<2"

    python litellm_client.py [URL [MODEL [RERANKER]]]

With the demo (scripts/demo), or any models of your config. RERANKER may be an embedding model too, as it is for the demo.
In the configuration of litellm's proxy the same is a model_list entry with litellm_params:
model: hosted_vllm/MODEL, api_base: URL/v1, api_key: any-key.
"""

import sys

import litellm

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"
reranker = sys.argv[3] if len(sys.argv) > 3 else model
texts = ["Forgot my login, what now?", "The weather in Shanghai is hot today.", "Rice takes 20 minutes."]

# The provider hosted_vllm passes dimensions on, which litellm's openai refuses for names that OpenAI does not have.
answer = litellm.embedding(f"hosted_vllm/{model}", input=texts, dimensions=64, api_base=f"{url}/v1", api_key="any-key")
print(f"{len(answer.data[0]['embedding'])} dimensions, {answer.usage.total_tokens} tokens")

question = "How do I reset my password?"
# Rerankers want the URL alone.
answer = litellm.rerank(
    f"hosted_vllm/{reranker}", query=question, documents=texts, top_n=2, api_base=url, api_key="any-key"
)
for result in answer.results:
    print(f"{result['relevance_score']:.3f}  {texts[result['index']]}")

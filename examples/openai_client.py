"""The openai package against the demo: pip install "openai>=3,<4"; scripts/demo in another terminal.

    python openai_client.py [URL [MODEL]]
"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"
client = OpenAI(base_url=f"{url}/v1", api_key="any-key")
texts = ["How do I reset my password?", "Forgot my login, what now?", "The weather in Shanghai is hot today."]
answer = client.embeddings.create(model=model, input=texts)
vectors = [item.embedding for item in answer.data]


def similarity(a: list, b: list) -> float:
    return sum(x * y for x, y in zip(a, b))  # vectors have length 1


print(f"{len(vectors[0])} dimensions, {answer.usage.total_tokens} tokens")
for text, vector in zip(texts, vectors):
    print(f"{similarity(vectors[0], vector):.3f}  {text}")

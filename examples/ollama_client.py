"""The ollama package: pip install "ollama<0.7"

    python ollama_client.py [URL [MODEL]]        with the demo (scripts/demo) or any embedding model of your config

Programs that find Ollama by OLLAMA_HOST find embedgate with OLLAMA_HOST=http://127.0.0.1:9100.
"""

import sys

import ollama

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"
client = ollama.Client(host=url)

texts = ["How do I reset my password?", "Forgot my login, what now?", "The weather in Shanghai is hot today."]
answer = client.embed(model=model, input=texts)
question = answer.embeddings[0]
print(f"{len(question)} dimensions, {answer.prompt_eval_count} tokens")
for text, vector in zip(texts, answer.embeddings):
    # Vectors have length 1.
    print(f"{sum(x * y for x, y in zip(question, vector)):.3f}  {text}")

"""huggingface_hub's InferenceClient, as for text-embeddings-inference: pip install "huggingface-hub>=1,<2" numpy

    python huggingface_hub_client.py [URL]        with the demo (scripts/demo)

It names no model, so the config's default_model answers (the demo's is all-MiniLM-L6-v2).
"""

import sys

from huggingface_hub import InferenceClient

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
texts = ["Forgot my login, what now?", "The weather in Shanghai is hot today.", "Rice takes 20 minutes."]

vectors = InferenceClient(model=url).feature_extraction(texts)
print(f"{vectors.shape[0]} vectors of {vectors.shape[1]} dimensions")

# Other tasks have URLs of their own.
question = "How do I reset my password?"
scores = InferenceClient(model=f"{url}/similarity").sentence_similarity(question, other_sentences=texts)
for score, text in sorted(zip(scores, texts), reverse=True):
    print(f"{score:.3f}  {text}")

"""A pipeline of Haystack's that embeds with embedgate: pip install "haystack-ai>=3,<4"

    python haystack_client.py [URL [MODEL]]        with the demo (scripts/demo) or any embedding model of your config
"""

import sys

from haystack import Document, Pipeline
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"
server = {"api_base_url": f"{url}/v1", "api_key": Secret.from_token("any-key"), "model": model}

texts = ["Forgot my login, what now?", "The weather in Shanghai is hot today.", "Rice takes 20 minutes."]
embedder = OpenAIDocumentEmbedder(**server, progress_bar=False, raise_on_failure=True)
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
store.write_documents(embedder.run(documents=[Document(content=text) for text in texts])["documents"])

pipeline = Pipeline()
pipeline.add_component("embedder", OpenAITextEmbedder(**server))
pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=2))
pipeline.connect("embedder.embedding", "retriever.query_embedding")
answer = pipeline.run({"embedder": {"text": "How do I reset my password?"}})
for document in answer["retriever"]["documents"]:
    print(f"{document.score:.3f}  {document.content}")

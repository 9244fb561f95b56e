"""A vector store of LangChain's that embeds with embedgate: pip install "langchain-openai>=1,<2" numpy

    python langchain_client.py [URL [MODEL]]        with the demo (scripts/demo) or any embedding model of your config

LangChain sends OpenAI's tokens in place of text, which embedgate reads. Its tiktoken fetches the list of them once; on a
machine without a network, set check_embedding_ctx_length=False, and it sends the text.
"""

import sys

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"

embeddings = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="any-key", model=model)
store = InMemoryVectorStore(embeddings)
store.add_texts(["Forgot my login, what now?", "The weather in Shanghai is hot today.", "Rice takes 20 minutes."])
for document, score in store.similarity_search_with_score("How do I reset my password?", k=2):
    print(f"{score:.3f}  {document.page_content}")

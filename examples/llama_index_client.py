"""An index of LlamaIndex's that embeds and reranks with embedgate:

    pip install "llama-index-core<0.15" "llama-index-embeddings-openai-like<0.5" "llama-index-postprocessor-jinaai-rerank<0.7"
    python llama_index_client.py [URL [MODEL [RERANKER]]]

With the demo (scripts/demo), or any models of your config. RERANKER may be an embedding model too, as it is for the demo.
"""

import sys

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.postprocessor.jinaai_rerank import JinaRerank

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9100"
model = sys.argv[2] if len(sys.argv) > 2 else "all-MiniLM-L6-v2"
reranker = sys.argv[3] if len(sys.argv) > 3 else model

# The package sends 10 texts a request when left alone; embedgate takes 2048.
embedding = OpenAILikeEmbedding(model_name=model, api_base=f"{url}/v1", api_key="any-key", embed_batch_size=256)
texts = ["Forgot my login, what now?", "The weather in Shanghai is hot today.", "Rice takes 20 minutes."]
index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=embedding)

question = "How do I reset my password?"
found = index.as_retriever(similarity_top_k=3).retrieve(question)
rerank = JinaRerank(base_url=f"{url}/v1", api_key="any-key", model=reranker, top_n=2)
for node in rerank.postprocess_nodes(found, QueryBundle(question)):
    print(f"{node.score:.3f}  {node.node.text}")

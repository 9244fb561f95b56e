"""langchain-openai and langchain-ollama against a running embedgate: python langchain_python.py URL."""

import asyncio

import openai
from check import MODEL, TEXTS, URL, expect, plain, refused, same
from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="any-key", model=MODEL, max_retries=0)
expect(embeddings.check_embedding_ctx_length, "token arrays of cl100k_base are what the package sends when left alone")

# Of an empty text there are no tokens: the package sends that one as a string.
same("embed_documents", embeddings.embed_documents(TEXTS), TEXTS)
same("embed_query", [embeddings.embed_query(TEXTS[1])], TEXTS[1:2])

# It puts up to 1000 texts into a request; two requests, and each vector in its place.
many = [f"text number {i}" for i in range(1100)]
vectors = embeddings.embed_documents(many)
expect(len(vectors) == 1100, f"{len(vectors)} vectors of 1100 texts")
some = [0, 1, 998, 999, 1000, 1099]
same("many texts", [vectors[i] for i in some], [many[i] for i in some])

# A text of more than 8191 tokens goes in pieces, whose mean it takes: here pieces of the same words, each cut by the model.
same("a text in pieces", embeddings.embed_documents(["word " * 9000]), ["word " * 9000])

strings = OpenAIEmbeddings(
    base_url=f"{URL}/v1", api_key="any-key", model=MODEL, check_embedding_ctx_length=False, max_retries=0
)
same("strings", strings.embed_documents(TEXTS), TEXTS)
short = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="any-key", model=MODEL, dimensions=64)
same("dimensions", short.embed_documents(TEXTS), TEXTS, dimensions=64)


async def asynchronously() -> None:
    same("aembed_documents", await embeddings.aembed_documents(TEXTS), TEXTS)
    same("aembed_query", await asyncio.gather(*(embeddings.aembed_query(text) for text in TEXTS)), TEXTS)


asyncio.run(asynchronously())

nope = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="any-key", model="nope", max_retries=0)
refused("another model", openai.NotFoundError, 'model "nope"', lambda: nope.embed_documents(["a"]))

ollama = OllamaEmbeddings(base_url=URL, model=MODEL)
same("Ollama's embed_documents", ollama.embed_documents(TEXTS), TEXTS)
same("Ollama's embed_query", [ollama.embed_query(TEXTS[0])], TEXTS[:1])
same("Ollama's aembed_documents", asyncio.run(ollama.aembed_documents(TEXTS)), TEXTS)

print("ok")

"""The cohere package against a running embedgate: python cohere_python.py URL."""

import asyncio
import base64
import struct

import cohere
from check import DOCUMENTS, M3, MODEL, QUERY, RERANKER, TEXTS, URL, expect, far, plain, ranking, refused, same, same_ranking
from cohere.core.request_options import RequestOptions

client = cohere.ClientV2(base_url=URL, api_key="any-key")

answer = client.embed(model=MODEL, texts=TEXTS, input_type="classification", embedding_types=["float"])
same("embed", answer.embeddings.float_, TEXTS)
expect(answer.id and answer.meta.billed_units.input_tokens > 0, answer.meta)
# Without types there are floats.
same("embed without types", client.embed(model=MODEL, texts=TEXTS, input_type="classification").embeddings.float_, TEXTS)

# The model has prompts for both, so that the same texts have other vectors.
for kind, name in [("search_query", "query"), ("search_document", "document")]:
    answer = client.embed(model=MODEL, texts=TEXTS, input_type=kind, embedding_types=["float"])
    same(kind, answer.embeddings.float_, TEXTS, prompt_name=name)
    expect(far(answer.embeddings.float_, plain(TEXTS)) > 1e-3, f"{kind} means nothing")

every = client.embed(
    model=MODEL, texts=TEXTS, input_type="classification", embedding_types=["float", "base64", "binary", "ubinary"]
).embeddings
same("float among other types", every.float_, TEXTS)
decoded = [struct.unpack("<384f", base64.b64decode(text)) for text in every.base64]
expect(far(decoded, every.float_) < 1e-7, "base64 equals float")
for vector, binary, ubinary in zip(every.float_, every.binary, every.ubinary):
    bits = "".join("1" if x > 0 else "0" for x in vector)
    expect("".join(f"{byte:08b}" for byte in ubinary) == bits, "ubinary has a bit a number")
    expect([byte - 128 for byte in ubinary] == binary, "binary is ubinary less 128")
expect(every.int8 is None and every.uint8 is None, "only what was asked for")

cut = client.embed(model=MODEL, texts=TEXTS, input_type="classification", output_dimension=64)
same("output_dimension", cut.embeddings.float_, TEXTS, dimensions=64)

# Cohere takes 96 texts a request; embedgate takes what is sent.
many = [f"text number {i}" for i in range(300)]
same("many texts", client.embed(model=MODEL, texts=many, input_type="classification").embeddings.float_, many)

long = "word " * 1000
same("a long text is cut", client.embed(model=MODEL, texts=[long], input_type="classification").embeddings.float_, [long])
at_once = RequestOptions(max_retries=0)


def embed(**more: object) -> object:
    arguments = {"model": MODEL, "texts": ["a"], "input_type": "classification", **more}
    return client.embed(**arguments, request_options=at_once)


refused("another model", cohere.NotFoundError, 'model "nope"', lambda: embed(model="nope"))
refused("a type that is not there", cohere.BadRequestError, "int8", lambda: embed(embedding_types=["int8"]))
refused("a long text with NONE", cohere.BadRequestError, "256", lambda: embed(texts=[long], truncate="NONE"))

for model in [RERANKER, M3]:
    expected = ranking(model)
    answer = client.rerank(model=model, query=QUERY, documents=DOCUMENTS)
    same_ranking("rerank", [(one.index, one.relevance_score) for one in answer.results], expected)
    expect(answer.id and answer.meta.billed_units.search_units == 1, answer.meta)
    answer = client.rerank(model=model, query=QUERY, documents=DOCUMENTS, top_n=1, max_tokens_per_doc=64)
    same_ranking("top_n", [(one.index, one.relevance_score) for one in answer.results], expected[:1])
refused(
    "rerank by another model",
    cohere.NotFoundError,
    'model "nope"',
    lambda: client.rerank(model="nope", query=QUERY, documents=DOCUMENTS, request_options=at_once),
)

# The first version of the API has reranking at another path.
first = cohere.Client(base_url=URL, api_key="any-key")
answer = first.rerank(model=RERANKER, query=QUERY, documents=DOCUMENTS, return_documents=True)
same_ranking("rerank, version 1", [(one.index, one.relevance_score) for one in answer.results], ranking())
expect([one.document.text for one in answer.results] == [DOCUMENTS[one.index] for one in answer.results], answer)


async def asynchronously() -> None:
    client = cohere.AsyncClientV2(base_url=URL, api_key="any-key")
    answer = await client.embed(model=MODEL, texts=TEXTS, input_type="classification")
    same("embed, asynchronously", answer.embeddings.float_, TEXTS)
    answer = await client.rerank(model=RERANKER, query=QUERY, documents=DOCUMENTS)
    same_ranking("rerank, asynchronously", [(one.index, one.relevance_score) for one in answer.results], ranking())


asyncio.run(asynchronously())

print("ok")

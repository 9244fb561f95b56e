"""The ollama package against a running embedgate: python ollama_python.py URL."""

import asyncio

import ollama
from check import M3, MODEL, TEXTS, URL, expect, refused, same

client = ollama.Client(host=URL)

answer = client.embed(model=MODEL, input=TEXTS)
same("embed", answer.embeddings, TEXTS)
expect(answer.model == MODEL, answer.model)
expect(answer.prompt_eval_count > 0 and answer.total_duration > 0, answer)
same("one text", client.embed(model=M3, input=TEXTS[0]).embeddings, TEXTS[:1], M3)
same("a name with a tag", client.embed(model=f"{MODEL}:latest", input=TEXTS).embeddings, TEXTS)
same("dimensions", client.embed(model=MODEL, input=TEXTS, dimensions=64).embeddings, TEXTS, dimensions=64)
same("the older form", [client.embeddings(model=MODEL, prompt=TEXTS[0]).embedding], TEXTS[:1])
# What a server that generates text takes, and this one has no use for.
same("options", client.embed(model=MODEL, input=TEXTS, options={"num_ctx": 512}, keep_alive="5m").embeddings, TEXTS)

names = [model.model for model in client.list().models]
expect(f"{MODEL}:latest" in names and f"{M3}:latest" in names, names)
expect(client.ps().models[0].model in names, client.ps())
# Clients pull what they do not find in the list.
expect(client.pull(MODEL).status == "success", client.pull(MODEL))
expect([part.status for part in client.pull(MODEL, stream=True)] == ["success"], "a stream")
shown = client.show(MODEL)
expect(shown.capabilities == ["embedding"], shown)
expect(shown.modelinfo["bert.embedding_length"] == 384, shown)

long = "word " * 1000
same("a long text is cut", client.embed(model=MODEL, input=long).embeddings, [long])
refused("a long text that may not be cut", ollama.ResponseError, "256", lambda: client.embed(MODEL, long, truncate=False))
error = refused("another model", ollama.ResponseError, 'model "nope"', lambda: client.embed(model="nope", input="a"))
expect(error.status_code == 404, error.status_code)


async def asynchronously() -> None:
    answer = await ollama.AsyncClient(host=URL).embed(model=MODEL, input=TEXTS)
    same("asynchronously", answer.embeddings, TEXTS)


asyncio.run(asynchronously())

print("ok")

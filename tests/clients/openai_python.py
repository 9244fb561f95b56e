"""The openai package against a running embedgate: python openai_python.py URL. Exits 0 when all holds."""

import openai
from check import URL, expect

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="any-key", max_retries=0)

# Without a format the package asks for base64 and decodes it itself.
texts = ["The cat sits on the mat.", "猫坐在垫子上。", "", "fn main() {}", "😀"]
answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
expect([item.index for item in answer.data] == [0, 1, 2, 3, 4], answer.data)
expect(all(len(item.embedding) == 384 for item in answer.data), "384 dimensions")
expect(all(abs(sum(x * x for x in item.embedding) - 1) < 1e-5 for item in answer.data), "length 1")
expect(answer.model == "all-MiniLM-L6-v2" and answer.object == "list", answer)
expect(answer.usage.prompt_tokens == answer.usage.total_tokens > 0, answer.usage)

floats = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, encoding_format="float")
for a, b in zip(answer.data, floats.data):
    # f32 as the package decodes it, against the shortest decimal that gives the same f32.
    expect(max(abs(x - y) for x, y in zip(a.embedding, b.embedding)) < 1e-7, "base64 equals float")

cut = client.embeddings.create(model="all-MiniLM-L6-v2-onnx", input=texts[0], dimensions=64)
expect(len(cut.data[0].embedding) == 64, "cut")
tokens = client.embeddings.create(model="all-MiniLM-L6-v2", input=[791, 8415, 23874])
expect(len(tokens.data) == 1, "one list of tokens is one input")

models = [model.id for model in client.models.list()]
expect(models[:2] == ["all-MiniLM-L6-v2", "all-MiniLM-L6-v2-onnx"], models)
expect(client.models.retrieve("all-MiniLM-L6-v2").owned_by == "embedgate", "retrieve")

raw = client.embeddings.with_raw_response.create(model="all-MiniLM-L6-v2", input="word " * 1000)
expect(raw.headers["x-truncated"] == "0:1002>256", raw.headers)
expect(raw.request_id is None or raw.request_id == raw.headers["x-request-id"], raw.headers)

for kind, arguments in [
    (openai.NotFoundError, {"model": "nope", "input": "a"}),
    (openai.BadRequestError, {"model": "all-MiniLM-L6-v2", "input": []}),
    (openai.BadRequestError, {"model": "all-MiniLM-L6-v2", "input": "a", "dimensions": 385}),
]:
    try:
        client.embeddings.create(**arguments)
    except kind as error:
        expect(error.body["message"] and error.type == "invalid_request_error", error.body)
    else:
        expect(False, f"{arguments} should be a {kind.__name__}")

print("ok")

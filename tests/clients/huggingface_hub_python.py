"""huggingface_hub's InferenceClient against a running embedgate: python huggingface_hub_python.py URL."""

import asyncio

from check import MODEL, TEXTS, URL, expect, far, plain, post, refused, same
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

# As the server of one model, which is the default one.
client = InferenceClient(model=URL)

vectors = client.feature_extraction(TEXTS)
expect(vectors.shape == (len(TEXTS), 384) and str(vectors.dtype) == "float32", vectors.shape)
same("feature_extraction", vectors, TEXTS)
same("one text", client.feature_extraction(TEXTS[0]), TEXTS[:1])
same("the route's own name", InferenceClient(model=f"{URL}/embed").feature_extraction(TEXTS), TEXTS)
same("base_url", InferenceClient(base_url=URL).feature_extraction(TEXTS), TEXTS)

for name in ["query", "document"]:
    vectors = client.feature_extraction(TEXTS, prompt_name=name, normalize=True)
    same(f"prompt_name {name}", vectors, TEXTS, prompt_name=name)
    expect(far(vectors.tolist(), plain(TEXTS)) > 1e-3, f"prompt_name {name} means nothing")
expected = plain(TEXTS, normalized=False)
expect(far(client.feature_extraction(TEXTS, normalize=False).tolist(), expected) < 1e-6, "normalize=False")
same("dimensions", client.feature_extraction(TEXTS, dimensions=64), TEXTS, dimensions=64)

long = "first " * 300 + "last " * 300
right = client.feature_extraction(long, truncate=True, truncation_direction="right")
same("truncated at the right", right, ["first " * 300])
same("truncated at the left", client.feature_extraction(long, truncate=True, truncation_direction="left"), ["last " * 300])
refused("a long text that may not be cut", HfHubHTTPError, "256", lambda: client.feature_extraction(long, truncate=False))

# The package knows one URL, so a task whose route is another one needs a client of its own.
texts = ["The cat lies on the rug.", "It rains.", TEXTS[0]]
scores = InferenceClient(model=f"{URL}/similarity").sentence_similarity(TEXTS[0], texts)
[source, *others] = plain([TEXTS[0], *texts])
products = [sum(x * y for x, y in zip(source, other)) for other in others]
expect(far(scores, products) < 1e-5, f"{scores}, expected {products}")
expect(abs(scores[2] - 1) < 1e-5 and scores[0] > scores[1], scores)

error = refused("a prompt that is not there", HfHubHTTPError, "nope", lambda: client.feature_extraction("a", prompt_name="nope"))
expect(error.response.status_code == 422, error)


async def asynchronously() -> None:
    same("asynchronously", await AsyncInferenceClient(model=URL).feature_extraction(TEXTS), TEXTS)


asyncio.run(asynchronously())

print("ok")

"""What the scripts of the Python clients share: how to fail, and vectors got by plain HTTP to hold a client's against.

A script is run as `python X_python.py URL`, prints "ok", and exits with 1 and a sentence on what was wrong otherwise.
"""

import json
import math
import sys
import urllib.request

URL = sys.argv[1]
MODEL = "all-MiniLM-L6-v2"
M3 = "bge-m3-local"
RERANKER = "bge-reranker-v2-m3"
DIMENSIONS = {MODEL: 384, M3: 64}
# Other scripts than Latin, an empty text, code, what JSON escapes, and nothing but white space.
TEXTS = ["The cat sits on the mat.", "猫坐在垫子上。", "", "fn main() {}", "😀 \"quoted\"\\ \u0007", "  \n"]
QUERY = "cars"
DOCUMENTS = ["cooking rice", "a red car", "the sea is blue"]


def expect(what: bool, message: object) -> None:
    if not what:
        sys.exit(f"failed: {message}")


def post(path: str, body: dict) -> dict:
    """Sends JSON with no library between."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def plain(texts: list, model: str = MODEL, **more: object) -> list:
    """The vectors of texts from /v1/embeddings."""
    return [item["embedding"] for item in post("/v1/embeddings", {"model": model, "input": texts, **more})["data"]]


def far(a: list, b: list) -> float:
    """The largest difference of two lists of numbers, at any depth."""
    if isinstance(a, (int, float)):
        return abs(a - b)
    expect(len(a) == len(b), f"{len(a)} items, expected {len(b)}")
    return max((far(x, y) for x, y in zip(a, b)), default=0.0)


def same(what: str, got: list, texts: list, model: str = MODEL, dimensions: int = 0, **more: object) -> None:
    """Holds that vectors are those of the texts, in their order, each of its length and of length 1."""
    got = [[float(x) for x in vector] for vector in got]
    expect(len(got) == len(texts), f"{what}: {len(got)} vectors of {len(texts)} texts")
    width = dimensions or DIMENSIONS[model]
    expect(all(len(vector) == width for vector in got), f"{what}: {width} dimensions")
    expect(all(abs(math.hypot(*vector) - 1) < 1e-5 for vector in got), f"{what}: vectors of length 1")
    if dimensions:
        more["dimensions"] = dimensions
    # A client may have turned f32 into f64 and back, no more.
    difference = far(got, plain(texts, model, **more))
    expect(difference < 1e-6, f"{what}: {difference} from the vectors of plain HTTP")


def ranking(model: str = RERANKER, query: str = QUERY, documents: list = DOCUMENTS) -> list:
    """Index and score of documents, best first, from /v1/rerank."""
    results = post("/v1/rerank", {"model": model, "query": query, "documents": documents})["results"]
    return [(result["index"], result["relevance_score"]) for result in results]


def same_ranking(what: str, got: list, expected: list) -> None:
    """Holds that pairs of index and score are the expected ones, in their order."""
    expect([i for i, _ in got] == [i for i, _ in expected], f"{what}: {got}, expected {expected}")
    expect(far([x for _, x in got], [x for _, x in expected]) < 1e-6, f"{what}: {got}, expected {expected}")


def refused(what: str, kind: type, says: str, call: object) -> Exception:
    """Holds that a call raises this kind of error, and that the error says this."""
    try:
        answer = call()
    except kind as error:
        expect(says in str(error), f"{what}: {says!r} is not in {error}")
        return error
    sys.exit(f"failed: {what} is no {kind.__name__} but {answer}")

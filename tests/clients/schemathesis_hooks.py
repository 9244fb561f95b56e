"""What schemathesis cannot know of a server: its models, prompts, dimensions and token ids.

Bodies that are right by the document become right for the models too, so that refusing them is a failure. What is wrong
with the others stays wrong.
"""

import schemathesis

RERANK = {"model": "reranker"}
EMBED = {"model": "bge-m3-local", "name": "bge-m3-local", "prompt_name": "query", "late_chunking": False}


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    known = RERANK if "rerank" in case.operation.path else EMBED
    for name, value in known.items():
        if isinstance(body.get(name), type(value)):
            body[name] = value
    for name in ("dimensions", "output_dimension"):
        # 0 stays, which means none.
        if is_count(body.get(name)):
            body[name] = int(body[name] % 64)
    for name in ("top_n", "top_k", "max_tokens", "max_tokens_per_doc", "truncate_prompt_tokens"):
        if is_count(body.get(name)) or body.get(name) == -1:
            body[name] = int(body[name])
    for name in ("input", "inputs", "ids"):
        if name in body:
            body[name] = ids(body[name])
    if isinstance(body.get("parameters"), dict) and isinstance(body["parameters"].get("prompt_name"), str):
        body["parameters"]["prompt_name"] = "query"


def is_count(value):
    """JSON Schema calls 3.0 an integer; embedgate does not."""
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value < 2**63 and value == int(value)


def ids(value):
    if isinstance(value, list):
        return [ids(one) for one in value]
    return int(value % 200) if is_count(value) and value < 2**32 else value

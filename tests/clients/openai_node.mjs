// The openai package against a running embedgate: node openai_node.mjs URL. Exits 0 when all holds.

import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "any-key", maxRetries: 0 });
const texts = ["The cat sits on the mat.", "猫坐在垫子上。", "", "fn main() {}", "😀"];

// Without a format the package asks for base64 and decodes it itself.
const answer = await client.embeddings.create({ model: "all-MiniLM-L6-v2", input: texts });
assert.deepEqual(answer.data.map((item) => item.index), [0, 1, 2, 3, 4]);
for (const item of answer.data) {
  assert.equal(item.embedding.length, 384);
  assert.ok(Math.abs(item.embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5);
}
assert.ok(answer.usage.total_tokens > 0);

const floats = await client.embeddings.create({ model: "all-MiniLM-L6-v2", input: texts, encoding_format: "float" });
floats.data.forEach((item, i) =>
  item.embedding.forEach((x, j) => assert.ok(Math.abs(x - answer.data[i].embedding[j]) < 1e-7)),
);

const cut = await client.embeddings.create({ model: "all-MiniLM-L6-v2-onnx", input: texts[0], dimensions: 64 });
assert.equal(cut.data[0].embedding.length, 64);

const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models.slice(0, 2), ["all-MiniLM-L6-v2", "all-MiniLM-L6-v2-onnx"]);

await assert.rejects(client.embeddings.create({ model: "nope", input: "a" }), { status: 404, code: "model_not_found" });
await assert.rejects(client.embeddings.create({ model: "all-MiniLM-L6-v2", input: [] }), { status: 400 });

console.log("ok");

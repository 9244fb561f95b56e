// The openai package for Node: npm install openai@6
//
//     node openai_client.mjs [URL [MODEL]]        with the demo (scripts/demo) or any embedding model of your config

import OpenAI from "openai";

const url = process.argv[2] ?? "http://127.0.0.1:9100";
const model = process.argv[3] ?? "all-MiniLM-L6-v2";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any-key" });

const texts = ["How do I reset my password?", "Forgot my login, what now?", "The weather in Shanghai is hot today."];
const answer = await client.embeddings.create({ model, input: texts });
const vectors = answer.data.map((item) => item.embedding);
console.log(`${vectors[0].length} dimensions, ${answer.usage.total_tokens} tokens`);

// Vectors have length 1.
const similarity = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
texts.forEach((text, i) => console.log(`${similarity(vectors[0], vectors[i]).toFixed(3)}  ${text}`));

// Code to copy that asks the chosen model of this server.

import { word } from "./words.js";

const JSON_TYPE = "content-type: application/json";

function curl({ origin, model, path, body, needsKey }) {
  const key = needsKey ? ` \\\n  -H 'authorization: Bearer ${word("yourKey")}'` : "";
  const quoted = JSON.stringify(body(model)).replaceAll("'", "'\\''");
  return `curl ${origin}${path} \\\n  -H '${JSON_TYPE}'${key} \\\n  -d '${quoted}'`;
}

function python({ origin, model, path, body, needsKey, scores }) {
  const key = needsKey ? word("yourKey") : "none";
  if (!scores) {
    return `from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key="${key}")\n`
      + `answer = client.embeddings.create(model=${JSON.stringify(model)}, input=${JSON.stringify([word("inputLabel")])})\n`
      + "print(answer.data[0].embedding)";
  }
  return `import requests\n\nanswer = requests.post("${origin}${path}", headers={"authorization": "Bearer ${key}"},\n`
    + `    json=${JSON.stringify(body(model))})\nprint(answer.json()["results"])`;
}

function javascript({ origin, model, path, body, needsKey }) {
  const key = needsKey ? `, authorization: "Bearer ${word("yourKey")}"` : "";
  return `const answer = await fetch("${origin}${path}", {\n  method: "POST",\n`
    + `  headers: { "content-type": "application/json"${key} },\n  body: JSON.stringify(${JSON.stringify(body(model))}),\n});\n`
    + "console.log(await answer.json());";
}

function langchain({ origin, model, needsKey, scores }) {
  const key = needsKey ? word("yourKey") : "none";
  if (scores) {
    return `from langchain_community.document_compressors import JinaRerank\n\n`
      + `# JINA_API_URL: ${origin}/v1/rerank\nreranker = JinaRerank(model=${JSON.stringify(model)}, jina_api_key="${key}")`;
  }
  return `from langchain_openai import OpenAIEmbeddings\n\nembeddings = OpenAIEmbeddings(\n`
    + `    model=${JSON.stringify(model)}, base_url="${origin}/v1", api_key="${key}")\n`
    + `print(embeddings.embed_query(${JSON.stringify(word("inputLabel"))}))`;
}

function ragflow({ origin, model, needsKey, scores, longest }) {
  return [
    "Model provider: OpenAI-API-Compatible",
    `Model type:     ${scores ? "rerank" : "embedding"}`,
    `Model name:     ${model}`,
    `Base URL:       ${origin}/v1`,
    `API-Key:        ${needsKey ? word("yourKey") : "none"}`,
    `Max tokens:     ${longest ?? 8192}`,
  ].join("\n");
}

/** The programs that there is code for. */
export const PROGRAMS = { curl, Python: python, JavaScript: javascript, LangChain: langchain, RAGFlow: ragflow };

/** The code of a program that asks a model. */
export function snippet(program, model, needsKey) {
  const scores = model.model_type === "rerank";
  const documents = [word("inputLabel")];
  return PROGRAMS[program]({
    origin: location.origin,
    model: model.id,
    needsKey,
    scores,
    longest: model.max_model_len,
    path: scores ? "/v1/rerank" : "/v1/embeddings",
    body: (name) => (scores ? { model: name, query: word("query"), documents } : { model: name, input: documents }),
  });
}

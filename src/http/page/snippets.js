// Code to copy that asks the chosen model of this server.

import { base } from "./api.js";
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
  const name = JSON.stringify(model);
  const text = JSON.stringify(word("inputLabel"));
  if (scores) {
    return "from langchain_community.document_compressors import jina_rerank\n\n"
      + `jina_rerank.JINA_API_URL = "${origin}/v1/rerank"\n`
      + `reranker = jina_rerank.JinaRerank(model=${name}, jina_api_key="${key}")\n`
      + `print(reranker.rerank([${text}], ${JSON.stringify(word("query"))}))`;
  }
  return "from langchain_openai import OpenAIEmbeddings\n\n"
    + "# Without check_embedding_ctx_length = False it fetches a table of OpenAI's, and sends token ids.\n"
    + `embeddings = OpenAIEmbeddings(\n    model=${name}, base_url="${origin}/v1", api_key="${key}",\n`
    + `    check_embedding_ctx_length=False)\nprint(embeddings.embed_query(${text}))`;
}

/** RAGFlow runs in a container, where the machine's own address is another. */
function ragflow({ origin, model, needsKey, scores, longest }) {
  const url = origin.replace(/\/\/(localhost|127\.[\d.]+|\[::1\])/, "//host.docker.internal");
  return [
    "Model provider: OpenAI-API-Compatible",
    `Model type:     ${scores ? "rerank" : "embedding"}`,
    `Model name:     ${model}`,
    `Base URL:       ${url}/v1`,
    `API-Key:        ${needsKey ? word("yourKey") : "none"}`,
    longest ? `Max tokens:     ${longest}` : "",
  ].filter(Boolean).join("\n");
}

/** The programs that there is code for. */
export const PROGRAMS = { curl, Python: python, JavaScript: javascript, LangChain: langchain, RAGFlow: ragflow };

/** The code of a program that asks a model; none while it is not known what the model gives. */
export function snippet(program, model, needsKey) {
  if (!model.model_type) return "";
  const scores = model.model_type === "rerank";
  const documents = [word("inputLabel")];
  return PROGRAMS[program]({
    origin: base.href.replace(/\/$/, ""),
    model: model.id,
    needsKey,
    scores,
    longest: model.max_model_len,
    path: scores ? "/v1/rerank" : "/v1/embeddings",
    body: (name) => (scores ? { model: name, query: word("query"), documents } : { model: name, input: documents }),
  });
}

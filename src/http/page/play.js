// The playground: texts in, what a model makes of them out.

import { post } from "./api.js";
import { element } from "./chart.js";
import { number, word } from "./words.js";

/** True for a model that gives this output, as far as that is known. */
function gives(model, output) {
  if (model.model_type === "rerank") return false;
  return model.outputs ? model.outputs.includes(output) : output === "dense" && model.dimensions > 0;
}

/** The tasks that can be tried: the words over the texts, whether there is a query or a kind, and which models can do it. */
export const TASKS = {
  similarity: { texts: "oneALine", kind: true, fits: (model) => gives(model, "dense"), run: similarity },
  sparse: { texts: "oneText", kind: true, fits: (model) => gives(model, "sparse"), run: sparse },
  match: { texts: "twoTexts", kind: true, fits: (model) => gives(model, "colbert"), run: match },
  rerank: { texts: "documentsALine", query: true, fits: (model) => Boolean(model.model_type), run: rerank },
  tokenize: { texts: "oneText", fits: () => true, run: tokenize },
};
/** Inputs of one request of this page. */
const MOST_TEXTS = 24;

function lines(text) {
  const all = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (all.length > MOST_TEXTS) throw new Problem(word("tooMany", { n: all.length, most: MOST_TEXTS }));
  return all;
}

/** The whole text, which must not be empty. */
function whole(text) {
  if (!text.trim()) throw new Problem(word("nothing"));
  return text;
}

class Problem extends Error {}

function atLeast(texts, n) {
  if (texts.length < n) throw new Problem(word(n > 1 ? "needTwo" : "nothing"));
  return texts;
}

function body(asked, more) {
  const kind = asked.kind === "none" ? {} : { input_type: asked.kind };
  return { model: asked.model, ...kind, ...more };
}

/** The server's times of the steps of an answer, and what of it was in the cache. */
function steps(headers) {
  const timing = headers.get("server-timing") ?? "";
  const [, hits, all] = /cache;desc="(\d+) of (\d+)"/.exec(timing) ?? [];
  if (hits === undefined) return "";
  const took = [...timing.matchAll(/(tokenize|queue|compute);dur=([\d.]+)/g)];
  const times = took.map(([, name, ms]) => `${word(`${name}Step`)} ${number(Number(ms), 1)}`).join(", ");
  const cached = word("fromCache", { hits, all });
  return hits === all ? cached : `${cached} · ${times}`;
}

/** The facts of an answer: its time, tokens, and what was cut. */
function outcome({ json, headers, ms }) {
  const tokens = json.usage?.total_tokens;
  const cut = headers.get("x-truncated");
  return [
    word("took", { ms: number(ms, 1) }),
    tokens === undefined ? "" : word("inTokens", { n: number(tokens, 0) }),
    steps(headers),
    cut ? word("cutNote", { what: cut }) : "",
  ].filter(Boolean).join(" · ");
}

function dot(a, b) {
  return a.reduce((total, x, i) => total + x * b[i], 0);
}

function cosine(a, b) {
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** The strongest color of a cell, in percent: letters can still be read on it. */
const STRONGEST = 45;

/** A cell whose color is as strong as its share. */
export function heat(value, share) {
  const cell = element("td", { text: number(value, 2) });
  const strength = Math.round(STRONGEST * Math.min(1, Math.max(0, share)));
  cell.style.background = `color-mix(in srgb, var(--accent) ${strength}%, var(--panel))`;
  return cell;
}

function table(caption, rows) {
  return element("div", { class: "wide" }, element("table", { class: "heat" }, element("caption", { text: caption }), ...rows));
}

function row(...cells) {
  return element("tr", {}, ...cells);
}

function heading(text, scope = "row") {
  return element("th", { scope, text, title: text });
}

async function similarity(asked) {
  const texts = atLeast(lines(asked.texts), 1);
  const answer = await post("v1/embeddings", body(asked, { input: texts }));
  const vectors = answer.json.data.map((item) => item.embedding);
  const head = row(element("td"), ...texts.map((text) => heading(text, "col")));
  const rows = texts.map((text, i) => row(heading(text), ...vectors.map((other) => {
    const value = cosine(vectors[i], other);
    return heat(value, value);
  })));
  return { outcome: outcome(answer), shown: [table(word("similarityOf"), [head, ...rows])] };
}

async function sparse(asked) {
  const text = whole(asked.texts);
  const answer = await post("v1/embeddings", body(asked, { input: [text], outputs: ["sparse"] }));
  const { indices, values } = answer.json.data[0].sparse_embedding;
  const order = indices.map((_, i) => i).sort((a, b) => values[b] - values[a]).slice(0, 60);
  const names = await post("decode", { model: asked.model, ids: order.map((i) => [indices[i]]) });
  const most = Math.max(...values, 1e-9);
  const rows = order.map((i, at) => {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${(100 * values[i]) / most}px`;
    const name = names.json[at]?.trim() || `#${indices[i]}`;
    return row(heading(name), element("td", { class: "number", text: number(values[i], 3) }), element("td", {}, bar));
  });
  return { outcome: outcome(answer), shown: [table(word("weightOf"), rows)] };
}

async function tokensOf(model, text) {
  const answer = await post("tokenize", { model, inputs: [text] });
  return { answer, tokens: answer.json[0] };
}

async function match(asked) {
  const texts = atLeast(lines(asked.texts), 2).slice(0, 2);
  const answer = await post("v1/embeddings", body(asked, { input: texts, outputs: ["colbert"] }));
  const rows = answer.json.data.map((item) => item.colbert_embedding);
  const all = await Promise.all(texts.map((text) => tokensOf(asked.model, text)));
  // The first token, which stands for the whole text, has no vector here. Behind a prompt, or cut, a text has others: they have numbers.
  const names = all.map(({ tokens }, i) => rows[i].map((_, at) => (
    tokens.length === rows[i].length + 1 ? tokens[at + 1].text : `#${at + 1}`)));
  let total = 0;
  const shown = rows[0].map((vector, i) => {
    const scores = rows[1].map((other) => dot(vector, other));
    const best = scores.indexOf(Math.max(...scores));
    total += scores[best];
    return row(heading(names[0][i]), element("td", { text: names[1][best] }), heat(scores[best], scores[best]));
  });
  shown.push(row(heading(word("mean")), element("td"), element("td", { text: number(total / rows[0].length, 3) })));
  return { outcome: outcome(answer), shown: [table(word("matchOf"), shown)] };
}

async function rerank(asked) {
  const documents = atLeast(lines(asked.texts), 1);
  const [query] = atLeast(lines(asked.query), 1);
  const answer = await post("v1/rerank", { model: asked.model, query, documents });
  const rows = answer.json.results.map(({ index, relevance_score: score }) => (
    row(heat(score, score), heading(documents[index]))));
  const head = row(heading(word("score"), "col"), heading(word("document"), "col"));
  return { outcome: outcome(answer), shown: [table(query, [head, ...rows])] };
}

async function tokenize(asked) {
  const { answer, tokens } = await tokensOf(asked.model, whole(asked.texts));
  const shown = tokens.map(({ id, text, special }) => (
    element("span", { class: "token" }, special ? element("em", { text }) : text, element("small", { text: id }))));
  const said = `${word("took", { ms: number(answer.ms, 1) })} · ${word("inTokens", { n: tokens.length })}`;
  return { outcome: said, shown: [element("div", { class: "tokens" }, ...shown)] };
}

/** The number of the task that was asked for last: an answer that comes later than the next one is not shown. */
let turn = 0;

/** Runs a task, and shows what came of it in two elements. */
export async function play(asked, said, result) {
  turn += 1;
  const own = turn;
  said.textContent = "…";
  said.className = "";
  try {
    const { outcome: text, shown } = await TASKS[asked.task].run(asked);
    if (own !== turn) return;
    said.textContent = text;
    result.replaceChildren(...shown);
  } catch (error) {
    if (own !== turn) return;
    said.textContent = error.message;
    said.className = "bad";
    result.replaceChildren();
    if (!(error instanceof Problem) && error.status === undefined) throw error;
  }
}

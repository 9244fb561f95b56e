// The table of models.

import { element } from "./chart.js";
import { growth, sum } from "./samples.js";
import { number, word } from "./words.js";

const MIB = 1024 * 1024;

/** The models: what is known without a key, and what the list of models says with one. */
export function merge(states, listed) {
  const byId = new Map(listed.map((model) => [model.id, model]));
  const all = states.map((state) => ({ ...byId.get(state.id), ...state }));
  const known = new Set(states.map(({ id }) => id));
  return [...all, ...listed.filter(({ id }) => !known.has(id))];
}

function gives(model) {
  if (model.model_type === "rerank") return word("scores");
  if (model.dimensions === 0) return word("sparseAlone");
  return model.dimensions ? `${model.dimensions} ${word("numbers")}` : "–";
}

function state(model) {
  const shown = element("td", { class: model.status === "ready" ? "good" : ["failed", "down"].includes(model.status) ? "bad" : "" });
  shown.append(word(model.status ?? "none"));
  if (model.total_bytes) {
    const share = (100 * model.fetched_bytes) / model.total_bytes;
    shown.append(element("small", { text: `${number(share, 0)} % / ${number(model.total_bytes / 1e6, 0)} MB` }));
  }
  if (model.status === "on_demand") shown.append(element("small", { text: word("loadedHint") }));
  return shown;
}

export function show(rows, models, before, after, seconds) {
  const figures = (model) => {
    const fits = (labels) => labels.model === model.id;
    const speed = before ? growth(before, after, "embedgate_tokens_total", fits) / seconds : NaN;
    const of = (metric) => (after ? sum(after, metric, fits) : NaN);
    const memory = of("embedgate_model_memory_bytes");
    return [number(speed, 0), number(of("embedgate_queue_inputs"), 0), memory > 0 ? `${number(memory / MIB, 0)} MiB` : "–"];
  };
  const made = models.map((model) => {
    const name = element("td", { text: model.id });
    if (model.aliases?.length) name.append(element("small", { text: model.aliases.join(", ") }));
    const place = element("td", { text: [model.backend, model.device].filter(Boolean).join(" · ") || "–" });
    if (model.precision) place.append(element("small", { text: model.precision }));
    const longest = model.max_model_len ? `${number(model.max_model_len, 0)} ${word("tokens")}` : "–";
    const numbers = [longest, ...figures(model)].map((text) => element("td", { class: "number", text }));
    return element("tr", {}, name, state(model), element("td", { text: gives(model) }), place, ...numbers);
  });
  put(rows, made);
}

/** Puts new rows in, but leaves the cells that stay the same as they are: somebody may read or select them. */
function put(rows, made) {
  if (rows.children.length !== made.length) return rows.replaceChildren(...made);
  made.forEach((row, i) => [...row.children].forEach((cell, at) => {
    const old = rows.children[i].children[at];
    if (!old.isEqualNode(cell)) old.replaceWith(cell);
  }));
  return undefined;
}

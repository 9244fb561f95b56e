// The samples of metrics, and what can be told from two of them.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
/** What follows behind a value: the trace of a request that took so long. */
const EXEMPLAR = ' # {trace_id="';
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Reads the text of metrics: for each name the list of its labels and values. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const [sample] = line.split(EXEMPLAR);
    const parts = LINE.exec(sample);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    if (!found.has(parts[1])) found.set(parts[1], []);
    found.get(parts[1]).push({ labels, value: Number(parts[3]) });
  }
  return found;
}

/** The sum of a metric's values over the labels that fit. */
export function sum(sample, name, fits = () => true) {
  let total = 0;
  for (const { labels, value } of sample.get(name) ?? []) if (fits(labels)) total += value;
  return total;
}

/** The values of a label of a metric, in their order. */
export function values(sample, name, label) {
  return [...new Set((sample.get(name) ?? []).map(({ labels }) => labels[label]))].filter(Boolean).sort();
}

/** By how much a counter grew between two samples; a counter that began anew grew from 0. */
export function growth(before, after, name, fits) {
  const [from, to] = [sum(before, name, fits), sum(after, name, fits)];
  return to < from ? to : to - from;
}

/** The quantile of what a histogram counted between two samples, by the usual interpolation; NaN where it counted nothing. */
export function quantile(share, before, after, name, fits = () => true) {
  const bucket = `${name}_bucket`;
  const edges = values(after, bucket, "le").map(toNumber).sort((a, b) => a - b);
  const counted = edges.map((edge) => growth(before, after, bucket, (labels) => toNumber(labels.le) === edge && fits(labels)));
  const total = counted.at(-1) ?? 0;
  if (!total) return NaN;
  const rank = share * total;
  const at = counted.findIndex((count) => count >= rank);
  const [low, below] = at > 0 ? [edges[at - 1], counted[at - 1]] : [0, 0];
  if (!Number.isFinite(edges[at])) return low;
  const inside = counted[at] - below;
  return inside ? low + (edges[at] - low) * ((rank - below) / inside) : edges[at];
}

/** A number as metrics write it, where infinity is `+Inf`. */
function toNumber(text) {
  return text === "+Inf" ? Infinity : Number(text);
}

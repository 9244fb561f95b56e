// The charts of what the server does, made of its metrics.

import { Chart } from "./chart.js";
import { growth, quantile, sum, values } from "./samples.js";
import { word } from "./words.js";

/** Points of a chart: five minutes of one every two seconds. */
const CAPACITY = 150;
/** Lines of a chart: more could not be told apart. */
const MOST_LINES = 5;
const MIB = 1024 * 1024;

/** What is drawn: the lines of two samples, so many seconds apart. A name that begins with @ is a word of the page. */
const CHARTS = [
  ["requests", "", ({ before, after, seconds }) => ({
    "@answered": growth(before, after, "embedgate_requests_total", isTraffic) / seconds,
  })],
  ["latency", " ms", ({ before, after }) => quantiles(before, after, "embedgate_request_duration_seconds", isTraffic)],
  ["tokensPerSecond", "", ({ before, after, seconds }) => byLabel(after, "embedgate_tokens_total", "model", (fits) => (
    growth(before, after, "embedgate_tokens_total", fits) / seconds))],
  ["queue", "", ({ after }) => ({
    "@queries": sum(after, "embedgate_queue_inputs", ({ lane }) => lane === "query"),
    "@bulk": sum(after, "embedgate_queue_inputs", ({ lane }) => lane === "bulk"),
  })],
  ["backlog", " ms", ({ before, after }) => quantiles(before, after, "embedgate_queue_duration_seconds")],
  ["batch", "", ({ before, after }) => ({
    "@mean": growth(before, after, "embedgate_batch_sequences_sum") / growth(before, after, "embedgate_batch_sequences_count"),
  })],
  ["hits", " %", ({ before, after }) => {
    const all = growth(before, after, "embedgate_inputs_total");
    const missed = growth(before, after, "embedgate_inputs_total", ({ result }) => result === "miss");
    return { "@cache": all ? (100 * (all - missed)) / all : NaN };
  }],
  ["errors", "", ({ before, after, seconds }) => {
    const isError = ({ status }) => Number(status) >= 400;
    return byLabel(after, "embedgate_requests_total", "status", (fits) => (
      growth(before, after, "embedgate_requests_total", fits) / seconds), isError);
  }],
  ["plugins", " ms", ({ before, after }) => byLabel(after, "embedgate_plugin_call_duration_seconds_count", "plugin", (fits) => (
    (1000 * growth(before, after, "embedgate_plugin_call_duration_seconds_sum", fits))
      / growth(before, after, "embedgate_plugin_call_duration_seconds_count", fits)))],
  ["memory", " MiB", ({ after }) => ({
    "@resident": sum(after, "process_resident_memory_bytes") / MIB,
    "@cache": sum(after, "embedgate_cache_bytes") / MIB,
  })],
];

/** The paths that this page asks for by itself are no traffic, nor are probes. */
const ASIDE = new Set(["/", "/metrics", "/readyz", "/livez", "/health", "/v1/models", "/v1/cluster/auth", "/page/{file}"]);

function isTraffic({ route }) {
  return !ASIDE.has(route);
}

function quantiles(before, after, name, fits) {
  const at = (share) => 1000 * quantile(share, before, after, name, fits);
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

/** A line for each value of a label. */
function byLabel(after, name, label, line, counts = () => true) {
  const found = values(after, name, label).filter((value) => counts({ [label]: value }));
  return Object.fromEntries(found.map((value) => [value, line((labels) => labels[label] === value)]));
}

/** The name of a line in the page's language; a name of the server's own stays as it is. */
function shownName(line) {
  return line.startsWith("@") ? word(line.slice(1)) : line;
}

export class Traffic {
  constructor(root) {
    this.charts = CHARTS.map(([name, unit, lines]) => ({ name, lines, chart: new Chart(name, unit), history: [] }));
    root.replaceChildren(...this.charts.map(({ chart }) => chart.root));
    this.before = null;
  }

  /** Takes a sample in, with the time at which it was taken, in milliseconds. */
  add(sample, time) {
    const { before, at } = this;
    [this.before, this.at] = [sample, time];
    if (!before) return;
    const pair = { before, after: sample, seconds: (time - at) / 1000 };
    for (const { lines, history } of this.charts) {
      history.push(lines(pair));
      if (history.length > CAPACITY) history.shift();
    }
    this.draw();
  }

  draw() {
    for (const { name, chart, history } of this.charts) {
      const names = Object.keys(history.at(-1) ?? {}).slice(0, MOST_LINES);
      const lines = names.map((line) => ({ name: shownName(line), points: history.map((values) => values[line] ?? NaN) }));
      chart.draw(word(name), lines, CAPACITY);
    }
  }
}

// The charts of what the server does, made of its metrics.

import { Chart } from "./chart.js";
import { growth, quantile, sum, values } from "./samples.js";
import { word } from "./words.js";

/** Points of a chart: five minutes of one every two seconds. */
const CAPACITY = 150;
/** Seconds between two samples: what comes later is behind a gap. */
const LONGEST_STEP = 8;
/** Lines of a chart: more could not be told apart. */
const MOST_LINES = 5;
/** Charts whose lines have no sum: of those that are not drawn the largest counts. */
const NOT_ADDED = new Set(["plugins", "backlog"]);
const MIB = 1024 * 1024;

/** The charts: each makes lines of two samples, so many seconds apart. A name begins with w:, a word of the page, or
 * with n:, a name of the server's own. */
const CHARTS = [
  ["requests", "", ({ before, after, seconds }) => ({
    "w:answered": growth(before, after, "embedgate_requests_total", isTraffic) / seconds,
  })],
  ["latency", " ms", ({ before, after }) => quantiles(before, after, "embedgate_request_duration_seconds", isTraffic)],
  ["tokensPerSecond", "", ({ before, after, seconds }) => byLabel(after, "embedgate_tokens_total", "model", (fits) => (
    growth(before, after, "embedgate_tokens_total", fits) / seconds))],
  ["queue", "", ({ after }) => ({
    "w:queries": sum(after, "embedgate_queue_inputs", ({ lane }) => lane === "query"),
    "w:bulk": sum(after, "embedgate_queue_inputs", ({ lane }) => lane === "bulk"),
  })],
  ["wait", " ms", ({ before, after }) => quantiles(before, after, "embedgate_queue_duration_seconds")],
  ["backlog", " s", ({ after }) => byLabel(after, "embedgate_backlog_seconds", "model", (fits) => (
    sum(after, "embedgate_backlog_seconds", fits)))],
  ["batch", "", ({ before, after }) => ({
    "w:mean": growth(before, after, "embedgate_batch_sequences_sum") / growth(before, after, "embedgate_batch_sequences_count"),
  })],
  ["hits", " %", ({ before, after }) => {
    const all = growth(before, after, "embedgate_inputs_total");
    const found = growth(before, after, "embedgate_inputs_total", ({ result }) => result === "hit" || result === "file");
    return { "w:cache": all ? (100 * found) / all : NaN };
  }],
  ["errors", "", ({ before, after, seconds }) => byLabel(after, "embedgate_refused_requests_total", "reason", (fits) => (
    growth(before, after, "embedgate_refused_requests_total", fits) / seconds))],
  ["plugins", " ms", ({ before, after }) => byLabel(after, "embedgate_plugin_call_duration_seconds_count", "plugin", (fits) => (
    (1000 * growth(before, after, "embedgate_plugin_call_duration_seconds_sum", fits))
      / growth(before, after, "embedgate_plugin_call_duration_seconds_count", fits)))],
  ["memory", " MiB", ({ after }) => ({
    "w:resident": sum(after, "process_resident_memory_bytes") / MIB,
    "w:cache": sum(after, "embedgate_cache_bytes") / MIB,
  })],
];

/** The paths of probes, and those that this page asks for by itself, are no traffic. */
const ASIDE = new Set(["/metrics", "/readyz", "/livez", "/health", "/v1/models", "/v1/cluster/auth", "/page/{file}"]);

function isTraffic({ route }) {
  return !ASIDE.has(route);
}

function quantiles(before, after, name, fits) {
  const at = (share) => 1000 * quantile(share, before, after, name, fits);
  return { "n:p50": at(0.5), "n:p95": at(0.95), "n:p99": at(0.99) };
}

/** A line for each value of a label. */
function byLabel(after, name, label, line) {
  const found = values(after, name, label);
  return Object.fromEntries(found.map((value) => [`n:${value}`, line((labels) => labels[label] === value)]));
}

/** The name of a line in the page's language; a name of the server's own stays as it is. */
function shownName(line) {
  return line.startsWith("w:") ? word(line.slice(2)) : line.slice(2);
}

/** The names of the lines with the most, and those of the rest. */
function largest(history) {
  const names = [...new Set(history.flatMap((values) => Object.keys(values)))];
  const most = (name) => Math.max(0, ...history.map((values) => values[name]).filter(Number.isFinite));
  if (names.length <= MOST_LINES) return [names, []];
  const order = names.sort((a, b) => most(b) - most(a));
  return [order.slice(0, MOST_LINES - 1).sort(), order.slice(MOST_LINES - 1)];
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
    const seconds = (time - at) / 1000;
    // The machine slept, or the tab: what was counted meanwhile is no rate of now.
    const isGap = seconds > LONGEST_STEP || seconds <= 0;
    for (const { lines, history } of this.charts) {
      history.push(isGap ? {} : lines({ before, after: sample, seconds }));
      if (history.length > CAPACITY) history.shift();
    }
    this.draw();
  }

  draw() {
    for (const { name, chart, history } of this.charts) {
      const [names, rest] = largest(history);
      const lines = names.map((line) => ({ name: shownName(line), points: history.map((values) => values[line] ?? NaN) }));
      if (rest.length > 0) {
        const others = (values) => {
          const finite = rest.map((line) => values[line]).filter(Number.isFinite);
          if (finite.length === 0) return NaN;
          return NOT_ADDED.has(name) ? Math.max(...finite) : finite.reduce((total, value) => total + value, 0);
        };
        lines.push({ name: word("others"), points: history.map(others) });
      }
      chart.draw(word(name), lines, CAPACITY);
    }
  }
}

// Calls of the server. A key that it asks for stays in this tab.

const kept = "embedgate-key";
/** Called where the server asks for a key, or refuses the one that is set. */
let onRefused = () => {};

export function whenRefused(call) {
  onRefused = call;
}

export function key() {
  return sessionStorage.getItem(kept) ?? "";
}

export function setKey(value) {
  if (value) sessionStorage.setItem(kept, value);
  else sessionStorage.removeItem(kept);
}

/** An answer that is no success: its status, and the server's words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key()) headers.authorization = `Bearer ${key()}`;
  const response = await fetch(path, { ...options, headers, credentials: "omit", referrerPolicy: "no-referrer" });
  if (response.ok) return response;
  const text = await response.text();
  let message = text.slice(0, 300) || response.statusText;
  try {
    const body = JSON.parse(text);
    message = body.error?.message ?? body.error ?? body.message ?? body.detail ?? message;
  } catch { /* not JSON */ }
  if (response.status === 401) onRefused(Boolean(key()));
  throw new Refusal(response.status, String(message));
}

/** The JSON of an answer. */
export async function get(path) {
  return (await ask(path, { headers: { accept: "application/json" } })).json();
}

/** The states of models, which are told where no model serves, too. */
export async function ready() {
  const response = await fetch("/readyz", { headers: { accept: "application/json" }, credentials: "omit" });
  return response.json();
}

/** The text of the metrics. */
export async function metrics() {
  return (await ask("/metrics", { headers: { accept: "application/openmetrics-text" } })).text();
}

/** The answer to a body: its JSON, its headers, and the time it took in milliseconds. */
export async function post(path, body) {
  const begun = performance.now();
  const response = await ask(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const json = await response.json();
  return { json, headers: response.headers, ms: performance.now() - begun };
}

// Calls of the server. A key that it asks for stays in this tab.

const kept = "embedgate-key";
/** The address of the server, which may be a folder of another one. */
export const base = new URL(".", location.href);
/** The longest that the server may take to say how it is, and to answer what people try, in milliseconds. */
const [SOON, AT_LAST] = [10_000, 120_000];
/** Called where the server asks for a key, or refuses the one that was sent. */
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

/** An answer that is no success: its status, 0 where there is none, and the server's words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(path, options, time) {
  try {
    const more = { credentials: "same-origin", referrerPolicy: "no-referrer", signal: AbortSignal.timeout(time) };
    return await fetch(new URL(path, base), { ...more, ...options });
  } catch (error) {
    throw new Refusal(0, error.message);
  }
}

async function ask(path, options = {}, time = SOON) {
  const headers = { ...options.headers };
  const sent = key();
  if (sent) headers.authorization = `Bearer ${sent}`;
  const response = await send(path, { ...options, headers }, time);
  if (response.ok) return response;
  const text = await response.text();
  let message = text.slice(0, 300) || response.statusText;
  try {
    const body = JSON.parse(text);
    message = body.error?.message ?? body.error ?? body.message ?? body.detail ?? message;
  } catch { /* not JSON */ }
  // Another key may have been set meanwhile.
  if (response.status === 401 && sent === key()) onRefused(Boolean(sent));
  throw new Refusal(response.status, String(message));
}

/** The JSON of an answer. */
export async function get(path) {
  return (await ask(path, { headers: { accept: "application/json" } })).json();
}

/** The state of the server and of each model, which is told where none serves, too. */
export async function ready() {
  const response = await send("readyz", { headers: { accept: "application/json" } }, SOON);
  try {
    return { serves: response.ok, ...(await response.json()) };
  } catch (error) {
    // Something between answers in its place.
    throw new Refusal(response.status, error.message);
  }
}

/** The text of the metrics. */
export async function metrics() {
  return (await ask("metrics", { headers: { accept: "application/openmetrics-text" } })).text();
}

/** The answer to a body: its JSON, its headers, and the time it took in milliseconds. */
export async function post(path, body) {
  const begun = performance.now();
  const headers = { "content-type": "application/json", "x-embedgate-timing": "true" };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body) }, AT_LAST);
  const json = await response.json();
  return { json, headers: response.headers, ms: performance.now() - begun };
}

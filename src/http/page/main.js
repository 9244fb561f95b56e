// The page: asks the server every two seconds how it is, and lets people try its models.

import * as api from "./api.js";
import { element } from "./chart.js";
import { merge, show } from "./models.js";
import { play, TASKS } from "./play.js";
import { parse } from "./samples.js";
import { PROGRAMS, snippet } from "./snippets.js";
import { Traffic } from "./traffic.js";
import { chooseLanguage, word } from "./words.js";

/** The time between two questions, in milliseconds. */
const PERIOD = 2000;
const at = (id) => document.getElementById(id);
const traffic = new Traffic(at("charts"));
let models = [];
let listed = [];
let needsKey = false;
let last = null;
/** The states of models that the list was read for. */
let asked = null;

/** Replaces the choices of a select, and keeps the one that was chosen where it is still there. */
function choices(select, all, chosen = select.value) {
  const same = select.options.length === all.length
    && all.every(([value, text], i) => select.options[i].value === value && select.options[i].text === text);
  if (same) return;
  select.replaceChildren(...all.map(([value, text]) => element("option", { value, text })));
  if (all.some(([value]) => value === chosen)) select.value = chosen;
}

function showModels() {
  const names = models.filter(({ status }) => ["ready", "on_demand"].includes(status));
  const fit = names.filter(TASKS[at("task").value].fits);
  choices(at("play-model"), fit.map(({ id }) => [id, id]));
  choices(at("use-model"), models.map(({ id }) => [id, id]));
  at("run").disabled = fit.length === 0;
  if (fit.length === 0) at("outcome").textContent = word("noModel");
  else if (at("outcome").textContent === word("noModel")) at("outcome").textContent = "";
  showSnippet();
}

function showSnippet() {
  const model = models.find(({ id }) => id === at("use-model").value);
  at("snippet").textContent = model ? snippet(at("program").value, model, needsKey) : "";
}

function showTask() {
  const task = TASKS[at("task").value];
  at("texts-name").textContent = word(task.texts);
  at("query-label").hidden = !task.query;
  showModels();
}

function showWords() {
  choices(at("task"), Object.keys(TASKS).map((name) => [name, word(name)]));
  choices(at("kind"), [["none", word("kindNone")], ["query", word("kindQuery")], ["document", word("kindDocument")]]);
  choices(at("program"), Object.keys(PROGRAMS).map((name) => [name, name]));
  traffic.draw();
  showTask();
}

/** Reads what changes seldom: who this server is, and its list of models. */
async function readList() {
  const root = await api.get("/");
  at("version").textContent = root.version;
  needsKey = (await api.get("/v1/cluster/auth")).auth;
  if (!needsKey || api.key()) listed = (await api.get("/v1/models")).data;
}

/** Asks the server once, and shows what it says. What is asked each time leaves no line in the log. */
async function refresh() {
  try {
    const states = (await api.ready()).models ?? [];
    const seen = JSON.stringify(states.map(({ id, status }) => [id, status]));
    if (seen !== asked) {
      await readList();
      asked = seen;
    }
    const time = performance.now();
    const sample = parse(await api.metrics());
    traffic.add(sample, time);
    models = merge(states, listed);
    show(at("model-rows"), models, last?.sample, sample, last && (time - last.time) / 1000);
    last = { sample, time };
    at("state").textContent = word("connected");
    at("state").className = "good";
    showModels();
  } catch (error) {
    at("state").textContent = word(error.status === 401 ? "needsKey" : "lost");
    at("state").className = "bad";
  }
}

async function keepAsking() {
  if (!document.hidden) await refresh();
  setTimeout(keepAsking, PERIOD);
}

function askForKey(isWrong) {
  at("key-problem").textContent = isWrong ? word("keyWrong") : "";
  if (isWrong) api.setKey("");
  if (!at("key-dialog").open) {
    at("key").value = "";
    at("key-dialog").showModal();
  }
}

function begin() {
  at("language").value = chooseLanguage();
  showWords();
  at("language").addEventListener("change", () => {
    chooseLanguage(at("language").value);
    showWords();
  });
  at("task").addEventListener("change", showTask);
  for (const id of ["use-model", "program"]) at(id).addEventListener("change", showSnippet);
  at("play").addEventListener("submit", (event) => {
    event.preventDefault();
    const asked = { task: at("task").value, model: at("play-model").value, kind: at("kind").value,
      query: at("query").value, texts: at("texts").value };
    play(asked, at("outcome"), at("result"));
  });
  at("copy").addEventListener("click", async () => {
    // Browsers have a clipboard on this machine and behind TLS alone.
    if (!navigator.clipboard) {
      getSelection().selectAllChildren(at("snippet"));
      return;
    }
    await navigator.clipboard.writeText(at("snippet").textContent);
    at("copy").textContent = word("copied");
    setTimeout(() => { at("copy").textContent = word("copy"); }, 1500);
  });
  at("key-button").addEventListener("click", () => askForKey(false));
  at("key-dialog").addEventListener("close", () => {
    if (at("key-dialog").returnValue !== "use") return;
    api.setKey(at("key").value.trim());
    asked = null;
    refresh();
  });
  let dismissed = false;
  at("key-dialog").addEventListener("cancel", () => { dismissed = true; });
  api.whenRefused((isWrong) => { if (isWrong || !dismissed) askForKey(isWrong); });
  keepAsking();
}

begin();

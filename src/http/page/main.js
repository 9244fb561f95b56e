// The page: asks the server every two seconds how it is, and lets people try its models.

import * as api from "./api.js";
import { element } from "./chart.js";
import { merge, show } from "./models.js";
import { play, TASKS } from "./play.js";
import { parse, values } from "./samples.js";
import { PROGRAMS, snippet } from "./snippets.js";
import { Traffic } from "./traffic.js";
import { chooseLanguage, word } from "./words.js";

/** The time between two questions, in milliseconds. */
const PERIOD = 2000;
const at = (id) => document.getElementById(id);
const traffic = new Traffic(at("charts"));
/** The age at which the list of models is read again where nothing else tells that it changed, in milliseconds. */
const OLD = 10_000;
let models = [];
let listed = [];
let needsKey = false;
let last = null;
/** The states of models that the list was read for, and when. */
let asked = { states: null, at: 0 };
/** True after the server asked for a key, until there is another. */
let waits = false;
/** True after somebody closed the dialog without a key. */
let dismissed = false;
let isBusy = false;

/** Writes a text, unless it is there: readers aloud would say it again. */
function say(element, text, look = "") {
  if (element.textContent !== text) element.textContent = text;
  if (element.className !== look) element.className = look;
}

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
  const isTold = at("outcome").textContent === word("noModel");
  if (fit.length === 0) say(at("outcome"), word("noModel"));
  else if (isTold) say(at("outcome"), "");
  showSnippet();
}

function showSnippet() {
  const model = models.find(({ id }) => id === at("use-model").value);
  say(at("snippet"), model ? snippet(at("program").value, model, needsKey) : "");
}

function showTask() {
  const task = TASKS[at("task").value];
  at("texts-name").textContent = word(task.texts);
  at("query-label").hidden = !task.query;
  at("kind-label").hidden = !task.kind;
  showModels();
}

function showWords() {
  choices(at("task"), Object.keys(TASKS).map((name) => [name, word(name)]));
  choices(at("kind"), [["none", word("kindNone")], ["query", word("kindQuery")], ["document", word("kindDocument")]]);
  choices(at("program"), Object.keys(PROGRAMS).map((name) => [name, name]));
  traffic.draw();
  showTask();
}

/** Reads what changes seldom: the list of models, and whether requests need a key. */
async function readList() {
  needsKey = (await api.get("v1/cluster/auth")).auth;
  if (!needsKey || api.key()) listed = (await api.get("v1/models")).data;
  else if (!dismissed) askForKey(false);
}

/** Reads the list of models where the states of models changed, or where they are not told and it is old. */
async function refreshList(states) {
  const now = JSON.stringify(states.map(({ id, status, device, precision }) => [id, status, device, precision]));
  const isOld = states.length === 0 && Date.now() - asked.at > OLD;
  if (now === asked.states && !isOld) return;
  await readList();
  asked = { states: now, at: Date.now() };
}

/** Asks the server how it is, and shows it. What is asked each time leaves no line in the log. */
async function ask() {
  const health = await api.ready();
  const states = health.models ?? [];
  const sample = parse(await api.metrics().catch((error) => {
    // Each further question without a key would be a line of the log.
    if (error.status === 401) waits = true;
    throw error;
  }));
  const time = Date.now();
  say(at("version"), values(sample, "embedgate_build_info", "version")[0] ?? "");
  traffic.add(sample, time);
  let problem = null;
  if (health.serves || states.length > 0) {
    await refreshList(states).catch((error) => { problem = error; });
  }
  models = merge(states, listed);
  show(at("model-rows"), models, last?.sample, sample, last && (time - last.time) / 1000);
  last = { sample, time };
  showModels();
  if (problem) throw problem;
  if (health.serves) say(at("state"), word("connected"), "good");
  else say(at("state"), word(health.status === "draining" ? "draining" : health.error?.code === "loading" ? "loadingAll" : "down"), "bad");
}

async function refresh() {
  if (isBusy || waits) return;
  isBusy = true;
  try {
    await ask();
  } catch (error) {
    // Another server may answer next.
    asked = { states: null, at: 0 };
    say(at("state"), word(error.status === 401 ? "needsKey" : "lost"), "bad");
    if (!(error instanceof api.Refusal)) throw error;
  } finally {
    isBusy = false;
  }
}

async function keepAsking() {
  try {
    if (!document.hidden) await refresh();
  } finally {
    setTimeout(keepAsking, PERIOD);
  }
}

function askForKey(isWrong) {
  const dialog = at("key-dialog");
  if (isWrong) {
    api.setKey("");
    say(at("key-problem"), word("keyWrong"));
  }
  if (dialog.open) return;
  if (!isWrong) say(at("key-problem"), "");
  // It would still say what was chosen the last time.
  dialog.returnValue = "";
  at("key").value = "";
  dialog.showModal();
}

function takeKey() {
  const given = at("key").value.trim();
  if (at("key-dialog").returnValue !== "use" || !given) {
    dismissed = true;
    return;
  }
  api.setKey(given);
  [waits, dismissed, asked] = [false, false, { states: null, at: 0 }];
  refresh();
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
    const tried = { task: at("task").value, model: at("play-model").value, kind: at("kind").value,
      query: at("query").value, texts: at("texts").value };
    play(tried, at("outcome"), at("result"));
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
  at("key-dialog").addEventListener("close", takeKey);
  api.whenRefused((isWrong) => {
    if (isWrong || !dismissed) askForKey(isWrong);
  });
  keepAsking();
}

begin();

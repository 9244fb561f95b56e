// Opens the page of a gateway in Chromium, as people do, and fails with what is wrong.
//
//     node tests/setup/page.mjs OPEN_URL URL_WITH_KEYS URL_WITH_KEYS_AND_PUBLIC_NAMES KEY [FOLDER_FOR_PICTURES]

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

const [open, closed, named, key, pictures] = process.argv.slice(2);
const tools = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../.embedgate");
const { chromium } = await import(path.join(tools, "playwright/index.mjs"));
const SIZES = [[390, 800], [768, 1000], [1280, 900]];
const TITLES = { "en-US": "Models", "zh-CN": "模型" };
/** AA of WCAG 2, for text of usual size. */
const CONTRAST = 4.5;

const browser = await chromium.launch({
  executablePath: path.join(tools, "browser/chromium"),
  env: { ...process.env, LD_LIBRARY_PATH: path.join(tools, "browser/lib") },
  args: ["--no-sandbox", "--no-zygote", "--disable-gpu"],
});

/** Opens a page, which must neither complain nor ask another server. */
async function visit(url, options, use) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => {
    // The browser reports refusals, which are part of what is tried.
    if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) problems.push(`asked ${request.url()}`);
  });
  await page.goto(url);
  await use(page);
  assert.deepEqual(problems, [], JSON.stringify(options));
  await context.close();
}

/** The texts whose contrast with what is behind them is too low. */
function faintTexts(least) {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixels = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = pixels(getComputedStyle(at).backgroundColor);
      if (color[3] > 0) return color;
    }
    return [255, 255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".hidden, .skip")) continue;
    const [a, b] = [light(pixels(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least) faint.push(`${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return faint;
}

async function run(page, task, texts, more = {}) {
  await page.selectOption("#task", task);
  if (more.model) await page.selectOption("#play-model", more.model);
  if (more.query) await page.fill("#query", more.query);
  await page.fill("#texts", texts);
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#outcome").textContent !== "…");
  return page.textContent("#outcome");
}

async function everySize() {
  for (const [width, height] of SIZES) {
    for (const colorScheme of ["light", "dark"]) {
      for (const locale of ["en-US", "zh-CN"]) {
        const options = { viewport: { width, height }, colorScheme, locale };
        await visit(open, options, async (page) => {
          await page.waitForSelector("#model-rows tr");
          assert.equal(await page.textContent("#models-title"), TITLES[locale]);
          await run(page, "similarity", "one\nanother", { model: "tiny" });
          await page.waitForSelector(".heat td");
          const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert.ok(over <= 0, `${JSON.stringify(options)}: ${over} pixels beyond the edge`);
          assert.deepEqual(await page.evaluate(faintTexts, CONTRAST), [], JSON.stringify(options));
          if (pictures) await page.screenshot({ path: `${pictures}/${locale}-${colorScheme}-${width}.png`, fullPage: true });
        });
      }
    }
  }
}

async function thePlayground() {
  await visit(open, { locale: "en-US" }, async (page) => {
    await page.waitForSelector("#model-rows tr");
    assert.match(await run(page, "similarity", "new\nb\nc", { model: "tiny" }), /ms · \d+ tokens · 0 of 3 from the cache · to tokens [\d.]+/);
    assert.match(await run(page, "similarity", "new\nb\nc", { model: "tiny" }), / · 3 of 3 from the cache$/);
    const cells = await page.$$eval(".heat td", (all) => all.map((cell) => cell.textContent).filter(Boolean));
    assert.equal(cells.length, 9);
    assert.equal(cells[0], "1");
    assert.match(await run(page, "sparse", "hello world"), /tokens/);
    assert.ok(await page.$(".heat .bar"));
    await run(page, "match", "hello there\nhello world");
    assert.match(await page.textContent(".heat"), /mean/);
    await run(page, "rerank", "one\ntwo", { model: "reranker", query: "one" });
    assert.equal((await page.$$(".heat tr")).length, 3);
    assert.match(await run(page, "tokenize", "hello"), /\d+ tokens/);
    assert.ok((await page.$$(".token")).length > 2);
    assert.equal(await run(page, "similarity", ""), "There is no text.");
    assert.match(await run(page, "similarity", "word ".repeat(9000), { model: "tiny" }), /cut: 0:/);
  });
}

async function theCharts() {
  await visit(open, { locale: "en-US" }, async (page) => {
    await page.waitForSelector("#model-rows tr");
    const embed = (input) => page.evaluate(async (input) => (await fetch("/v1/embeddings", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ model: "tiny", input }),
    })).status, input);
    const shown = (title) => page.waitForFunction((title) => {
      const chart = [...document.querySelectorAll(".chart")].find((one) => one.querySelector("h3").textContent === title);
      const label = chart?.querySelector("svg").getAttribute("aria-label") ?? "";
      return /\d/.test(label) ? label : null;
    }, title).then((handle) => handle.jsonValue());
    await shown("Memory");
    for (let i = 0; i < 5; i += 1) assert.equal(await embed(`chart ${i}`), 200);
    assert.equal(await embed(5), 400);
    await page.waitForFunction(() => [...document.querySelectorAll(".chart svg")].some((svg) => (
      /^Errors\/s: .*invalid_\w+ (0\.\d*[1-9]|[1-9])/.test(svg.getAttribute("aria-label")))));
    // The sizes do not change while nobody asks.
    const metrics = await (await fetch(`${open}/metrics`)).text();
    const bytes = Number(/^embedgate_cache_bytes (\d+)/m.exec(metrics)[1]);
    const mib = Number(/cache ([\d.]+)/.exec(await shown("Memory"))[1]);
    assert.ok(Math.abs(mib - bytes / 1048576) <= 0.006, `${mib} MiB shown, ${bytes} bytes counted`);
    assert.match(await shown("Tokens/s"), /tiny \d/);
  });
}

async function theKeyboardAlone() {
  await visit(open, { locale: "en-US" }, async (page) => {
    await page.waitForSelector("#model-rows tr");
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    const focus = async (id) => {
      for (let i = 0; i < 40; i += 1) {
        if (await page.evaluate((id) => document.activeElement.id === id, id)) {
          const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
          assert.notEqual(outline, "none", id);
          return;
        }
        await page.keyboard.press("Tab");
      }
      assert.fail(`no Tab leads to ${id}`);
    };
    await focus("texts");
    await page.keyboard.type("by hand");
    await focus("run");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".heat td");
    await focus("copy");
  });
}

async function theSnippets() {
  await visit(open, { locale: "en-US" }, async (page) => {
    await page.waitForSelector("#model-rows tr");
    for (const model of ["tiny", "reranker"]) {
      await page.selectOption("#use-model", model);
      await page.selectOption("#program", "curl");
      const curl = await page.textContent("#snippet");
      const answer = JSON.parse(execFileSync("bash", ["-c", `${curl.replace("curl ", "curl --silent ")}`], { encoding: "utf8" }));
      assert.ok(answer.data ?? answer.results, curl);
      await page.selectOption("#program", "JavaScript");
      const said = await page.textContent("#snippet");
      const printed = execFileSync("node", ["--input-type=module", "-e", said], { encoding: "utf8" });
      assert.match(printed, model === "tiny" ? /embedding/ : /relevance_score/);
      for (const program of ["Python", "LangChain", "RAGFlow"]) {
        await page.selectOption("#program", program);
        assert.ok((await page.textContent("#snippet")).includes(model));
      }
    }
  });
}

async function theKey(url) {
  await visit(url, { locale: "en-US" }, async (page) => {
    const state = (text) => page.waitForFunction((text) => document.querySelector("#state").textContent === text, text);
    const isOpen = () => page.evaluate(() => document.querySelector("#key-dialog").open);
    await page.waitForSelector("#key-dialog[open]");
    await page.fill("#key", "no-such-key");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#key-problem").textContent);
    await page.fill("#key", key);
    await page.keyboard.press("Enter");
    await state("connected");
    await page.waitForSelector("#model-rows tr");
    assert.match(await run(page, "similarity", "a", { model: "tiny" }), /tokens/);
    // Whoever looks at the dialog and leaves it keeps the key.
    await page.click("#key-button");
    await page.keyboard.press("Escape");
    assert.match(await run(page, "similarity", "b"), /tokens/);
    assert.equal(await isOpen(), false);
    const kept = await page.evaluate(() => [Object.values(localStorage).join(), Object.values(sessionStorage).join()]);
    assert.ok(!kept[0].includes(key) && kept[1].includes(key));
  });
  await visit(url, { locale: "en-US" }, async (page) => {
    await page.waitForSelector("#key-dialog[open]");
    await page.click('#key-dialog button[value="cancel"]');
    // More than two questions of the server later it is not asked again.
    const asked = () => page.waitForResponse((response) => response.url().endsWith("/readyz"), { timeout: 5000 });
    await asked().then(asked).then(asked).catch(() => {});
    assert.equal(await page.evaluate(() => document.querySelector("#key-dialog").open), false);
    if (url !== named) return;
    // The figures need no key here, and go on after a wrong one, too.
    await page.click("#key-button");
    await page.fill("#key", "no-such-key");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#key-problem").textContent);
    await page.click('#key-dialog button[value="cancel"]');
    await page.waitForFunction(() => document.querySelector("#state").textContent === "connected");
    const samples = () => page.waitForResponse((response) => response.url().endsWith("/metrics"));
    await samples().then(samples);
  });
}

/** Letters can be read on a cell of any share. */
async function theHeat() {
  for (const colorScheme of ["light", "dark"]) {
    await visit(open, { colorScheme }, async (page) => {
      const n = await page.evaluate(async () => {
        const { heat } = await import("./page/play.js");
        const row = document.createElement("tr");
        for (let i = 0; i <= 20; i += 1) row.append(heat(i / 20, i / 20));
        document.body.append(document.createElement("table"));
        document.querySelector("body > table").append(row);
        return document.querySelectorAll("body > table td").length;
      });
      assert.equal(n, 21);
      assert.deepEqual(await page.evaluate(faintTexts, CONTRAST), []);
    });
  }
}

/** Names of models are shown as they are. */
async function theNames() {
  await visit(open, {}, async (page) => {
    const shown = await page.evaluate(async () => {
      const { Traffic } = await import("./page/traffic.js");
      const { parse } = await import("./page/samples.js");
      const root = document.createElement("div");
      const traffic = new Traffic(root);
      const sample = (tokens) => parse(['@cache', '{n}', 'a \\"b\\"', 'constructor', 'e', 'f', 'g']
        .map((name, i) => `embedgate_tokens_total{model="${name}"} ${tokens * (i + 1)}`).join("\n"));
      traffic.add(sample(0), 1000);
      traffic.add(sample(10), 3000);
      return [...root.querySelectorAll("svg")].map((svg) => svg.getAttribute("aria-label")).find((text) => text.startsWith("Tokens/s"));
    });
    assert.equal(shown, "Tokens/s: constructor 20, e 25, f 30, g 35, others 30");
  });
}

try {
  const checks = {
    everySize, thePlayground, theCharts, theHeat, theNames, theKeyboardAlone, theSnippets,
    theKey: () => theKey(closed), theKeyWhereNamesArePublic: () => theKey(named),
  };
  for (const [name, check] of Object.entries(checks)) {
    const begun = Date.now();
    await check();
    console.log(`${name}: ${Date.now() - begun} ms`);
  }
} finally {
  await browser.close();
}

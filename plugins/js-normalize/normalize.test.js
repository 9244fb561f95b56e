// `npm test`: the plugin's own rules, in node. That it builds and runs in the gateway is for the gateway's tests.
import assert from "node:assert/strict";
import test from "node:test";

import { lifecycle, preprocessor } from "./normalize.js";

function edits(texts, settings = {}) {
  lifecycle.init(JSON.stringify(settings));
  const outcome = preprocessor.preprocess({ inputs: { tag: "texts", val: texts } }, null);
  return outcome.tag === "edited" ? outcome.val.inputs.val : [];
}

function normalized(text, settings) {
  return edits([text], settings)[0]?.text ?? text;
}

test("only changed texts come back, with their indexes", () => {
  assert.deepEqual(edits(["plain", "of\ufb01ce", "plain too", " a\n\tb "]), [
    { index: 1, text: "office" },
    { index: 3, text: "a b" },
  ]);
});

test("nothing changed is no edit at all", () => {
  const request = { inputs: { tag: "texts", val: ["plain"] } };
  assert.deepEqual(preprocessor.preprocess(request, null), { tag: "unchanged" });
});

test("token ids stay as they came", () => {
  const request = { inputs: { tag: "tokens", val: [[1, 2]] } };
  assert.deepEqual(preprocessor.preprocess(request, null), { tag: "unchanged" });
});

test("invisible characters go, joiners stay", () => {
  assert.equal(normalized("co\u00adopera\u200btion\ufeff"), "cooperation");
  assert.equal(normalized("می\u200cخواهم 👩\u200d💻"), "می\u200cخواهم 👩\u200d💻");
});

test("wide spaces and letters become plain ones", () => {
  assert.equal(normalized("Ｆｕｌｌ\u3000ｗｉｄｔｈ\u00a0①"), "Full width 1");
});

test("each run of whitespace becomes one space", () => {
  assert.equal(normalized("\u2003a  b\r\n\r\nc \td\te é \u2028f\n"), "a b c d e é f");
});

test("plain texts are lower-cased too", () => {
  assert.equal(normalized("Plain Text", { lower_case: true }), "plain text");
});

test("a text of whitespace alone stays as it is", () => {
  assert.equal(normalized(" \n\u200b"), " \n\u200b");
});

test("lower-cased text is still in the form", () => {
  const text = normalized("ÅNGSTRÖM ℡ İ", { lower_case: true });
  assert.equal(text, "ångström tel i\u0307");
  assert.equal(text, text.normalize("NFKC"));
});

test("each step can be turned off", () => {
  const off = { form: "none", remove_invisible: false, collapse_whitespace: false };
  assert.deepEqual(edits(["of\ufb01ce\u00ad  A"], off), []);
});

test("wrong settings are named", () => {
  assert.throws(() => lifecycle.init('{"lowercase": true}'), /unknown setting "lowercase": use form, /);
  assert.throws(() => lifecycle.init('{"lower_case": "yes"}'), /lower_case must be a boolean, got "yes"/);
  assert.throws(() => lifecycle.init('{"form": "NFX"}'), /form must be one of NFC, NFD, NFKC, NFKD, none, got "NFX"/);
});

// Makes texts that look the same embed the same: one Unicode form, no invisible characters, single spaces.
//
// It never changes how many texts there are, and leaves token ids as they came.

const FORMS = ["NFC", "NFD", "NFKC", "NFKD", "none"];

const DEFAULTS = {
  /** Unicode normalization form; "none" keeps what came. */
  form: "NFKC",
  /** Removes soft hyphens, zero-width spaces, word joiners and byte order marks, as PDFs leave them in words. */
  remove_invisible: true,
  /** Makes each run of whitespace one space, and removes it at both ends. */
  collapse_whitespace: true,
  /** For models that were trained on lower-case text; most tokenizers of such models do it themselves. */
  lower_case: false,
};

// U+200C and U+200D, the joiners, are not among them: they carry meaning in Persian, Hindi and emoji.
const INVISIBLE = /[\u00ad\u200b\u2060\ufeff]+/gu;
// Any whitespace but a single space, which need not be replaced by itself: 4 times as fast on English.
const UNEVEN_WHITESPACE = /[^\S ]\s*| \s+/gu;
// Printable ASCII, single spaces within: what most texts are. Nothing but lower-casing can change such a text, and
// seeing that takes a twentieth of the time of the steps.
const PLAIN = /^[!-~]+(?: [!-~]+)*$/;

let settings = DEFAULTS;

export const lifecycle = {
  /** Throws a string: the gateway shows it and does not load the plugin. */
  init(json) {
    settings = parseSettings(json);
  },
};

export const preprocessor = {
  preprocess(request, _caller) {
    if (request.inputs.tag !== "texts") {
      return { tag: "unchanged" };
    }
    const changed = changedTexts(request.inputs.val);
    if (changed.length === 0) {
      return { tag: "unchanged" };
    }
    return { tag: "edited", val: { inputs: { tag: "some", val: changed }, responseHeaders: [] } };
  },
};

/** The texts that normalizing changes, with their indexes: the others need not be copied back to the gateway. */
function changedTexts(texts) {
  const changed = [];
  texts.forEach((before, index) => {
    const text = normalize(before);
    // A text that was nothing but whitespace stays: what becomes of blank texts is the gateway's to decide.
    if (text !== before && text !== "") {
      changed.push({ index, text });
    }
  });
  return changed;
}

function normalize(text) {
  if (PLAIN.test(text)) {
    return settings.lower_case ? text.toLowerCase() : text;
  }
  text = toForm(text);
  if (settings.remove_invisible) {
    text = text.replace(INVISIBLE, "");
  }
  if (settings.lower_case) {
    // Lower-casing can leave the form: "İ" becomes two characters.
    text = toForm(text.toLowerCase());
  }
  if (settings.collapse_whitespace) {
    // After the form, which turns no-break and ideographic spaces into plain ones.
    text = text.replace(UNEVEN_WHITESPACE, " ").trim();
  }
  return text;
}

function toForm(text) {
  return settings.form === "none" ? text : text.normalize(settings.form);
}

function parseSettings(json) {
  const given = JSON.parse(json);
  for (const [key, value] of Object.entries(given)) {
    if (!Object.hasOwn(DEFAULTS, key)) {
      throw `unknown setting ${JSON.stringify(key)}: use ${Object.keys(DEFAULTS).join(", ")}`;
    }
    if (typeof value !== typeof DEFAULTS[key]) {
      throw `setting ${key} must be a ${typeof DEFAULTS[key]}, got ${JSON.stringify(value)}`;
    }
  }
  const merged = { ...DEFAULTS, ...given };
  if (!FORMS.includes(merged.form)) {
    throw `setting form must be one of ${FORMS.join(", ")}, got ${JSON.stringify(merged.form)}`;
  }
  return merged;
}

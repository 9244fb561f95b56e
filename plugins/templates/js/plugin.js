// {{name}}: takes the whitespace off both ends of every text.
import { write } from "embedgate:plugin/log@0.1.0";

let lowerCase = false;

export const lifecycle = {
  /** Called once, with the plugin's settings as JSON. Throw a string to refuse them: the gateway shows it. */
  init(json) {
    const { lower_case = false, ...unknown } = JSON.parse(json);
    if (Object.keys(unknown).length > 0 || typeof lower_case !== "boolean") {
      throw `the settings of {{name}} are { lower_case = true or false }, got ${json}`;
    }
    lowerCase = lower_case;
  },
};

export const preprocessor = {
  /** Called for every request. Throw `{ status: 400, code, message, headers: [] }` to refuse it. */
  preprocess(request, _caller) {
    if (request.inputs.tag !== "texts") {
      return { tag: "unchanged" };
    }
    const texts = request.inputs.val.map((text) => (lowerCase ? text.trim().toLowerCase() : text.trim()));
    write("debug", "trimmed texts", [["texts", String(texts.length)]]);
    return { tag: "edited", val: { inputs: { tag: "all", val: texts }, responseHeaders: [] } };
  },
};

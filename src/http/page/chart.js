// A chart of a few lines over time, with the last value of each in words.

import { number } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 100];

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The top of a scale: a round number at or above the largest one. */
function ceiling(most) {
  if (!(most > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((n) => n * step).find((n) => n >= most);
}

/** The parts of a line between the gaps, where there is no number. */
function path(points, capacity, top) {
  let text = "";
  let isOn = false;
  points.forEach((value, i) => {
    const place = i + capacity - points.length;
    if (!Number.isFinite(value)) { isOn = false; return; }
    const x = (place / (capacity - 1)) * WIDTH;
    const y = HEIGHT - (value / top) * (HEIGHT - 4) - 1;
    // A point alone is a dash, or nobody would see it.
    text += isOn ? `L${x.toFixed(1)} ${y.toFixed(1)}` : `M${(x - 0.7).toFixed(1)} ${y.toFixed(1)}L${x.toFixed(1)} ${y.toFixed(1)}`;
    isOn = true;
  });
  return text;
}

export class Chart {
  constructor(title, unit) {
    this.title = element("h3");
    this.most = element("span", { class: "most" });
    this.legend = element("ul");
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.root = element("figure", { class: "chart" }, element("figcaption", {}, this.title, this.most), this.svg, this.legend);
    this.name = title;
    this.unit = unit;
  }

  /** Draws lines: each has a name and its points, the newest last. */
  draw(title, lines, capacity) {
    this.title.textContent = title;
    const all = lines.flatMap(({ points }) => points).filter(Number.isFinite);
    const top = ceiling(Math.max(0, ...all));
    this.most.textContent = `${number(top)}${this.unit}`;
    this.svg.replaceChildren(
      shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }),
      shape("line", { x1: 0, x2: WIDTH, y1: 3, y2: 3, "stroke-dasharray": "3 4" }),
      ...lines.map(({ points }, i) => shape("path", { class: `s${i % 5}`, d: path(points, capacity, top) })),
    );
    const said = lines.map(({ name, points }) => `${name} ${number(points.at(-1) ?? NaN)}${this.unit}`);
    this.svg.setAttribute("aria-label", `${title}: ${said.join(", ")}`);
    this.legend.replaceChildren(...said.map((text, i) => element("li", { class: `s${i % 5}` }, element("span", { text }))));
  }
}

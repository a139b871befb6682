"use strict";
// State and helpers. Text from records only ever becomes text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const state = { filters: {}, text: "", hidden: new Set(), panel: 0, cost: "disk_bytes", log: null, sort: "wer", descending: false, chosen: null, against: "reference" };
let data = null;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits, unit = 1) => (known(value) ? (value / unit).toFixed(digits) : "–");
const signed = (value) => (known(value) ? (value >= 0 ? "+" : "−") + Math.abs(value).toFixed(2) : "–");
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const metrics = (points) => [...new Set(points.map((point) => point.metric))].sort().reverse().join(", "); // WER, CER
const told = ({ name, digits, scale }, point) => fixed(point[name], digits, scale);
const star = (point) => (point.diff_significant ? "*" : "");
const share = (point, edit) => (known(point[edit]) && point.words ? (100 * point[edit]) / point.words : null);
const title = (point) => `${point.model}, ${point.series} ${point.bits}, ${point.dataset}`;
const rowsOf = (point) => data.transcripts[point.fingerprint] || [];

const COSTS = {}; // what the plot may have on its x axis: costs among the metrics, and the weight bits
const FILTERS = { model: "Model", dataset: "Test set", method: "Method", bits: "Bits" };

function passes(point) {
  const chosen = Object.keys(FILTERS).every((name) => !state.filters[name] || point[name] === state.filters[name]);
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const said = `${title(point)} ${point.method} ${point.fingerprint} ${point.code} ${point.normalizer}`.toLowerCase();
  return chosen && words.every((word) => said.includes(word));
}

function choice(label, options, value, act) {
  const select = make("select", { on: { change: (event) => act(event.target.value) } });
  for (const [key, name] of options) select.append(make("option", { value: key, ...(key === value ? { selected: true } : {}) }, name));
  return make("div", {}, make("label", {}, label, select));
}

// Shapes in a square of side 2r around (x, y), in matplotlib's letters.
function shape(letter, x, y, r) {
  const path = (points) => draw("path", { class: "shape", d: `M${points.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join("L")}Z` });
  switch (letter) {
    case 0: return draw("circle", { class: "shape", cx: x, cy: y, r: r * 0.95 });
    case 1: return path([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]]);
    case 2: return path([[0, -1.1], [1.05, 0.85], [-1.05, 0.85]]);
    case 3: return path([[0, -1.2], [1.1, 0], [0, 1.2], [-1.1, 0]]);
    case 4: return path([[0, 1.1], [1.05, -0.85], [-1.05, -0.85]]);
    case 5: return path([[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]]);
    case 6: return path([[-1.05, -0.5], [-0.5, -1.05], [0, -0.5], [0.5, -1.05], [1.05, -0.5], [0.5, 0], [1.05, 0.5], [0.5, 1.05], [0, 0.5], [-0.5, 1.05], [-1.05, 0.5], [-0.5, 0]]);
    case 7: return path([[-1.1, 0], [0.85, -1.05], [0.85, 1.05]]);
    default: return path([[1.1, 0], [-0.85, -1.05], [-0.85, 1.05]]);
  }
}

// What both pages are built with. Texts come from anybody: they are only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const drawingSpace = document.getElementById("patterns").namespaceURI;

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined).map((child) => child instanceof Node ? child : String(child)));
  return node;
}
const element = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);
const shape = (name, attributes, ...children) => filled(document.createElementNS(drawingSpace, name), attributes, children);

const ICONS = {
  held: "M4 10.5l4 4 8-9",
  failed: "M5 5l10 10M15 5L5 15",
  broken: "M10 3.5L18 17H2zM10 8.5v4M10 14.6v.4",
  unknown: "M4 10h12",
  host: "M3 4h14v9H3zM7 17h6M10 13v4",
  core: "M10 2a8 8 0 100 16 8 8 0 000-16zM2 10h16M10 2c3 2.5 3 13.5 0 16M10 2c-3 2.5-3 13.5 0 16",
};
function icon(name) {
  const line = { fill: "none", stroke: "currentColor", "stroke-width": name === "host" || name === "core" ? 1.4 : 2.2, "stroke-linecap": "round", "stroke-linejoin": "round" };
  return shape("svg", { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true" }, shape("path", { d: ICONS[name], ...line }));
}

const WORDS = { held: "held", failed: "failed", broken: "broken off", unknown: "not judged" };
const badge = (kind) => element("span", { class: `badge ${kind}` }, icon(kind), WORDS[kind]);
const judged = (held) => (held === true ? "held" : held === false ? "failed" : "unknown");

// Numbers.
function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}
function bytes(count) {
  let [value, unit] = [count, 0];
  while (value >= 999.5 && unit < 5) [value, unit] = [value / 1024, unit + 1];
  return unit === 0 ? `${Math.round(value)} B` : `${digits(value)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}
function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 99.95) return `${value.toFixed(value < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(value);
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
}
const clock = (value) => (value === null || value === undefined ? "" : `${value.toFixed(value < 99.95 ? 2 : 1)} s`);
const number = (value) => (Number.isInteger(value) || Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : digits(value));
const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const total = (numbers) => numbers.reduce((sum, one) => sum + one, 0);
const most = (numbers) => numbers.reduce((top, one) => Math.max(top, one), 0);

function card(title, about, ...children) {
  const id = `section-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return element("section", { class: "card", "aria-labelledby": id }, element("h2", { id }, title), about ? element("p", { class: "muted small" }, about) : null, ...children);
}

// A table whose rows stand below each other on a narrow screen. A column is [title, content of a row, class].
function table(columns, rows, { caption, rowClass, tableClass } = {}) {
  const head = element("tr", null, columns.map(([title, , kind]) => element("th", { scope: "col", class: kind }, title)));
  const cell = (row, [title, content, kind], index) =>
    index === 0 ? element("th", { scope: "row", class: kind }, content(row)) : element("td", { class: kind, "data-label": title }, element("div", null, content(row)));
  const body = rows.map((row) => element("tr", { class: rowClass?.(row) }, columns.map((column, index) => cell(row, column, index))));
  return element("div", { class: "scroll" },
    element("table", { class: `stack ${tableClass ?? ""}`, "aria-label": caption }, element("thead", null, head), element("tbody", null, body)));
}

const facts = (pairs) =>
  element("dl", { class: "facts" }, pairs.filter(([, value]) => value !== "").map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, value))));

function meter(value, top) {
  const fill = element("i");
  fill.style.width = `${top > 0 ? Math.round((value / top) * 100) : 0}%`;
  return element("span", { class: "meter", "aria-hidden": "true" }, fill);
}

// The page about two runs, side by side.

document.title = `${data.a.scenario} and ${data.b.scenario}`;

const SIDES = ["a", "b"];
const nothing = "–";

function side(which) {
  const one = data[which];
  return element("section", { class: "card side", "aria-label": `Side ${which.toUpperCase()}` },
    element("p", { class: "eyebrow" }, which.toUpperCase()),
    element("h2", { class: "any-wrap" }, one.scenario),
    element("p", { class: "mono muted any-wrap" }, one.folder),
    element("div", { class: `verdict ${one.verdict}` }, icon(one.verdict), element("div", null, element("strong", null, WORDS[one.verdict]), element("p", null, one.summary))),
    facts([["values", one.values.join(", ")], ["took", seconds(one.took_seconds)], ["engine", one.engine], ["seed", String(one.seed)], ["began", one.began.replace("T", " ").replace("Z", " UTC")]]));
}

function ratio(a, b) {
  if (!(a > 0) || !Number.isFinite(b)) return "";
  const times = b / a;
  const change = times >= 1.005 ? "more" : times < 0.995 ? "less" : "the same";
  return element("span", { title: `B is ${digits(times)} times A: ${change}` }, change === "the same" ? "=" : `${change === "more" ? "▲" : "▼"} × ${digits(times)}`);
}

// Rows with a bar for each side, to the same scale.
function numbers(title, about, rows, value, shown, comparable = () => true) {
  if (rows.length === 0) return null;
  const of = (row, which) => (row[which] === null ? null : value(row[which]));
  const cell = (row, which) => {
    const one = of(row, which);
    if (one === null) return nothing;
    const top = Math.max(of(row, "a") ?? 0, of(row, "b") ?? 0);
    return [element("span", null, shown(one, row[which])), comparable(row) ? meter(one, top) : null];
  };
  return card(title, about, table([
    ["", (row) => row.name, "any-wrap"],
    ...SIDES.map((which) => [which.toUpperCase(), (row) => cell(row, which), "right side-cell"]),
    ["B / A", (row) => (comparable(row) ? ratio(of(row, "a"), of(row, "b")) : ""), "right no-wrap"],
  ], rows, { caption: title }));
}

function expectations() {
  if (data.expectations.length === 0) return null;
  const cell = (judgedOne) => (judgedOne === null ? nothing : [badge(judged(judgedOne.held)), element("p", { class: "any-wrap small" }, judgedOne.seen)]);
  const differs = (row) => row.a?.held !== row.b?.held;
  const sorted = [...data.expectations].sort((x, y) => Number(differs(y)) - Number(differs(x)));
  const count = sorted.filter(differs).length;
  return card("Expectations", count === 0 ? "The same verdict on all." : `${plural(count, "verdict differs", "verdicts differ")}; ${count === 1 ? "it comes" : "they come"} first.`, table([
    ["expected", (row) => row.name, "any-wrap"],
    ...SIDES.map((which) => [which.toUpperCase(), (row) => cell(row[which]), "any-wrap"]),
    ["", (row) => (differs(row) ? element("strong", { class: "no-wrap" }, "≠ differs") : "")],
  ], sorted, { caption: "Expectations", rowClass: (row) => (differs(row) ? "changed" : null) }));
}

function ends() {
  const rows = data.processes.filter((row) => row.a?.end !== row.b?.end || row.a?.runs !== row.b?.runs);
  const cell = (used) => (used === null ? nothing : used.runs > 1 ? `${used.end} (${used.runs} runs)` : used.end);
  return rows.length === 0 ? null : card("Processes that ended differently", null, table([["", (row) => row.name, "any-wrap"], ...SIDES.map((which) => [which.toUpperCase(), (row) => cell(row[which])])], rows, { caption: "Ends of processes" }));
}

const sameUnit = (row) => row.a === null || row.b === null || row.a.unit === row.b.unit;
const lines = [...data.lines, data.all_lines];
page.replaceChildren(...[
  element("header", null, element("p", { class: "eyebrow" }, "Keyferry scenarios"), element("h1", null, "Two runs side by side"),
    element("p", { class: "question any-wrap" }, data.a.question === data.b.question ? data.a.question : `${data.a.question} – ${data.b.question}`)),
  element("div", { class: "sides" }, SIDES.map(side)),
  expectations(),
  numbers("Steps", "How long each took.", data.steps, (took) => took, seconds),
  ends(),
  numbers("Processes: time", "All runs of each together.", data.processes, (used) => used.took_seconds, seconds),
  numbers("Processes: CPU", null, data.processes, (used) => used.cpu_seconds, seconds),
  numbers("Processes: memory", "The most that was resident at once.", data.processes, (used) => used.peak_resident_bytes, bytes),
  numbers("Figures", null, data.figures, (figure) => figure.value, (value, figure) => `${number(value)} ${figure.unit}`, sameUnit),
  numbers("Lines of sites", "Bytes out of each site and into it, together.", lines, (carried) => carried.out_bytes + carried.in_bytes, bytes),
  element("footer", null, "Made by keyferry-sim compare. This page is complete in itself: it loads nothing and sends nothing."),
].filter((one) => one !== null));

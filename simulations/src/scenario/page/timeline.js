// All on one clock: steps, processes with their paths, the progress of fetches, and what lines carried.

const MAX_STEP_LANES = 10;
const MAX_GUIDES = 40;
const MAX_COLOURS = 6;
const LINES_AT_FIRST = 6;
const MAX_ROWS_AS_TEXT = 600;
const PATHS = { none: "no path", direct: "direct", relay: "relay", both: "direct + relay", untold: "running; tells of no paths" };

const measure = document.createElement("canvas").getContext("2d");
function textWidth(text, size) {
  measure.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return measure.measureText(text).width;
}

// The scale of a drawing: seconds to pixels.
function scaleOf(width, last) {
  const [left, right] = [10, 26];
  const perSecond = (width - left - right) / last;
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400];
  const step = steps.find((one) => one * perSecond >= 64) ?? steps.at(-1);
  const ticks = Array.from({ length: Math.floor(last / step + 1e-9) + 1 }, (_, index) => index * step);
  return { width, last, step, ticks, x: (at) => left + Math.min(Math.max(at, 0), last) * perSecond, at: (x) => Math.min(Math.max((x - left) / perSecond, 0), last) };
}

function tickText(at, step) {
  if (step >= 60 && at > 0) return at % 3600 === 0 ? `${at / 3600} h` : `${Math.round(at / 60)} min`;
  return `${at.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)} s`;
}

function drawing(scale, height, guides, label) {
  const svg = shape("svg", { width: scale.width, height, viewBox: `0 0 ${scale.width} ${height}`, role: label ? "img" : null, "aria-label": label, "aria-hidden": label ? null : "true" });
  svg.append(...scale.ticks.map((at) => shape("line", { class: "tick", x1: scale.x(at), x2: scale.x(at), y1: 0, y2: height })));
  svg.append(...guides.map((step) => shape("line", { class: step.error ? "guide failed" : "guide", x1: scale.x(step.began_s), x2: scale.x(step.began_s), y1: 0, y2: height })));
  return svg;
}

function lane(view, name, below, svg, kind) {
  const label = element("div", { class: "name", title: name }, element("b", null, name), below ? element("small", null, below) : null);
  const row = element("div", { class: `lane ${kind ?? ""}` }, label, svg);
  row.style.gridTemplateColumns = `${view.labels}px ${view.scale.width}px`;
  return row;
}

function axis(view) {
  const svg = drawing(view.scale, 20, []);
  svg.append(...view.scale.ticks.map((at, index) => shape("text", { class: "tick-text", x: view.scale.x(at), y: 14, "text-anchor": index === 0 ? "start" : "middle" }, tickText(at, view.scale.step))));
  return lane(view, "", null, svg);
}

const group = (title, about, ...rows) =>
  element("div", { class: "clock-group" }, element("div", { class: "clock-heading" }, element("h3", null, title), about ? element("span", null, about) : null), ...rows);

// Steps: each has a bar, and its name where it does not hide another.
function placedSteps(steps, scale) {
  const lanes = [];
  return steps.map((step) => {
    const [from, to] = [scale.x(step.began_s), Math.max(scale.x(step.ended_s ?? scale.last), scale.x(step.began_s) + 4)];
    const text = step.error ? `✕ ${step.name}` : step.name;
    const width = textWidth(text, 12) + 2;
    const place = width + 12 <= to - from ? { text_x: from + 6, anchor: "start", left: from, right: to }
      : to + 5 + width <= scale.width ? { text_x: to + 5, anchor: "start", left: from, right: to + 5 + width }
      : { text_x: from - 5, anchor: "end", left: from - 5 - width, right: to };
    let row = lanes.findIndex((end) => end + 8 <= place.left);
    if (row < 0) row = lanes.length < MAX_STEP_LANES ? lanes.push(0) - 1 : -1;
    if (row >= 0) lanes[row] = place.right;
    return { step, from, to, row: row < 0 ? MAX_STEP_LANES - 1 : row, text: row < 0 ? "" : text, ...place };
  });
}

function stepsGroup(view, steps) {
  const placed = placedSteps(steps, view.scale);
  const height = 23 * (most(placed.map((one) => one.row)) + 1) + 6;
  const svg = drawing(view.scale, height, [], `${plural(steps.length, "step", "steps")}; the table of steps says the same`);
  for (const { step, from, to, row, text, text_x, anchor } of placed) {
    const [top, kind] = [4 + row * 23, step.error ? " failed" : ""];
    const tip = `${step.name}: ${step.words}\n${clock(step.began_s)} – ${step.ended_s === null ? "never ended" : clock(step.ended_s)}${step.error ? `\n${step.error}` : ""}`;
    svg.append(shape("line", { class: `guide${kind}`, x1: from, x2: from, y1: top + 18, y2: height }));
    svg.append(shape("rect", { class: `step-bar${kind}`, x: from, y: top, width: to - from, height: 18, rx: 3, "data-tip": tip }));
    svg.append(shape("text", { class: `step-text${kind}`, x: text_x, y: top + 13, "text-anchor": anchor }, text));
  }
  return group("Steps", null, axis(view), lane(view, "", null, svg));
}

// Processes.
function spansOf(process, run, track, last) {
  const end = run.ended_s ?? last;
  const within = track.spans.filter((span) => span.from_s >= run.began_s - 1e-6 && span.to_s <= end + 1e-6);
  return within.length > 0 ? within : [{ from_s: run.began_s, to_s: end, path: "untold", words: PATHS.untold }];
}

function runDrawing(view, process, run, track, height) {
  const { scale } = view;
  const thick = height - 15;
  const end = run.ended_s ?? scale.last;
  const parts = [];
  for (const span of spansOf(process, run, track, scale.last)) {
    const [from, to] = [scale.x(span.from_s), Math.max(scale.x(span.to_s), scale.x(span.from_s) + 1.5)];
    const tip = `${process.name}: ${span.words}\n${clock(span.from_s)} – ${clock(span.to_s)} (${seconds(span.to_s - span.from_s)})`;
    parts.push(shape("rect", { class: `run ${span.path}`, x: from, y: 4, width: Math.max(to - from - 1, 1), height: thick, "data-tip": tip }));
    const label = span.path === "untold" ? "" : PATHS[span.path];
    if (span.path !== "none" && thick >= 12 && textWidth(label, 11.5) + 12 < to - from) {
      parts.push(shape("text", { class: `run-text ${span.path}`, x: from + 6, y: 4 + thick / 2 + 4 }, label));
    }
  }
  parts.push(shape("rect", { class: "run-edge", x: scale.x(run.began_s), y: 3.5, width: Math.max(scale.x(end) - scale.x(run.began_s), 2), height: thick + 1, rx: 2, "pointer-events": "none" }));
  const bad = run.signal !== null || (run.code !== null && run.code !== 0);
  const mark = run.signal !== null ? `✕ signal ${run.signal}` : run.code === null ? "" : bad ? `✕ exit ${run.code}` : "✓";
  if (mark === "") return parts;
  // Behind the run, or at its end where the next one is near.
  const next = Math.min(...process.runs.map((one) => one.began_s).filter((began) => began > run.began_s), Infinity);
  const [width, right] = [textWidth(mark, 11.5) + 8, Number.isFinite(next) ? scale.x(next) : scale.width];
  const left = scale.x(end) + 1 + width <= right ? scale.x(end) + 1 : Math.max(scale.x(end) - width - 2, scale.x(run.began_s) + 1);
  parts.push(shape("rect", { class: "end-ground", x: left, y: 5, width, height: thick - 2, rx: 2, "pointer-events": "none" }));
  parts.push(shape("text", { class: bad ? "end-mark bad" : "end-mark", x: left + 4, y: 4 + thick / 2 + 4 }, mark));
  return parts;
}

function waitDrawing(view, process, track, height) {
  const [still, wait] = [height - 9, height - 3];
  const tip = (wait) => `${process.name}: ${wait.words}\n${clock(wait.from_s)} – ${clock(wait.to_s)} (${seconds(wait.to_s - wait.from_s)})`;
  const wide = (wait) => Math.max(view.scale.x(wait.to_s) - view.scale.x(wait.from_s), 2);
  return [
    ...track.standstills.map((one) => shape("rect", { class: "still", x: view.scale.x(one.from_s), y: still, width: wide(one), height: 3, "data-tip": tip(one) })),
    ...track.waits.map((one) => shape("line", { class: "wait", x1: view.scale.x(one.from_s), x2: view.scale.x(one.from_s) + wide(one), y1: wait, y2: wait, "data-tip": tip(one) })),
  ];
}

function processesGroup(view, report, guides) {
  const { processes } = report.outcome;
  const height = processes.length <= 12 ? 34 : processes.length <= 40 ? 26 : 20;
  const rows = processes.map((process, index) => {
    const track = report.tracks[index];
    const words = process.runs.map((run) => spansOf(process, run, track, view.scale.last).map((span) => `${PATHS[span.path]} until ${clock(span.to_s)}`).join(", "));
    const svg = drawing(view.scale, height, guides, `${process.name}: ${words.join("; then again: ")}`);
    svg.append(...process.runs.flatMap((run) => runDrawing(view, process, run, track, height)), ...waitDrawing(view, process, track, height));
    const row = lane(view, process.name, null, svg, `process ${height < 30 ? "tight" : ""} ${index % 2 === 1 ? "odd" : ""}`);
    row.firstChild.style.paddingTop = `${Math.max((height - 15) / 2 - 4, 0)}px`;
    return row;
  });
  return group("Processes", "each run, by the path it had", ...rows, axis(view));
}

// Progress of fetches, one curve a run.
function fetchesOf(report) {
  return report.tracks.filter((track) => track.progress.length > 0).map((track) => {
    const size = most(track.progress.map(([, , all]) => all)) || most(track.progress.map(([, done]) => done)) || 1;
    const runs = [];
    track.progress.forEach(([at, done], index) => {
      if (index === 0 || done < track.progress[index - 1][1]) runs.push([]);
      runs.at(-1).push([at, done / size, done]);
    });
    return { name: track.process, runs, size };
  });
}

const polyline = (points) => points.map(([x, y], index) => `${index === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function progressGroup(view, report, guides) {
  const fetches = fetchesOf(report);
  if (fetches.length === 0) return null;
  const [top, height, few] = [20, 200, fetches.length <= MAX_COLOURS];
  const y = (share) => height - 8 - share * (height - 8 - top);
  const svg = drawing(view.scale, height, guides, `Progress of ${plural(fetches.length, "fetch", "fetches")}: ${fetches.slice(0, 20).map((one) => `${one.name} had ${bytes(one.runs.at(-1).at(-1)[2])} of ${bytes(one.size)} at ${clock(one.runs.at(-1).at(-1)[0])}`).join(", ")}`);
  svg.append(...[0, 0.5, 1].map((share) => shape("line", { class: "flow-axis", x1: 0, x2: view.scale.width, y1: y(share), y2: y(share) })));
  const curves = new Map();
  fetches.forEach((fetch, index) => {
    const d = fetch.runs.map((run) => polyline(run.map(([at, share]) => [view.scale.x(at), y(share)]))).join("");
    curves.set(fetch.name, shape("path", { class: few ? `curve curve-${index}` : "curve curve-0 faint", d }));
  });
  svg.append(...curves.values());
  svg.append(...[0, 0.5, 1].map((share) => shape("text", { class: "tick-text", x: 4, y: y(share) - 3 }, `${share * 100} %`)));
  const overlay = shape("rect", { x: 0, y: 0, width: view.scale.width, height, fill: "transparent" });
  overlay.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const [at, share] = [view.scale.at(event.clientX - box.left), (height - 8 - (event.clientY - box.top)) / (height - 8 - top)];
    const near = fetches.map((fetch) => ({ fetch, seen: fetch.runs.flat().filter((point) => point[0] <= at).at(-1) })).filter(({ seen }) => seen)
      .sort((a, b) => Math.abs(a.seen[1] - share) - Math.abs(b.seen[1] - share))[0];
    curves.forEach((curve, name) => curve.classList.toggle("strong", name === near?.fetch.name));
    overlay.setAttribute("data-tip", near ? `${near.fetch.name}\n${bytes(near.seen[2])} of ${bytes(near.fetch.size)} (${Math.floor(near.seen[1] * 100)} %) at ${clock(at)}` : "");
  });
  svg.append(overlay);
  const row = lane(view, "", null, svg);
  if (few) {
    const swatch = (index) => shape("svg", { width: 26, height: 8, "aria-hidden": "true" }, shape("path", { class: `curve curve-${index}`, d: "M0 4H26" }));
    row.firstChild.replaceChildren(element("ul", { class: "legend" }, fetches.map((fetch, index) => element("li", { title: fetch.name }, swatch(index), element("span", { class: "any-wrap" }, fetch.name)))));
  } else {
    row.firstChild.replaceChildren(element("b", null, `${fetches.length} fetches`), element("small", null, "a curve each"));
  }
  return group("Progress of fetches", "verified bytes", row, axis(view));
}

// What lines carried: out of the site above the axis, into it below.
function flowsOf(outcome) {
  return outcome.lines.filter((line) => line.samples.length > 1).map(({ site, samples }) => {
    const rates = samples.slice(1).map(([at, out, into], index) => {
      const [before, outBefore, intoBefore] = samples[index];
      const took = Math.max(at - before, 1e-3);
      return { from: before, to: at, out: Math.max(out - outBefore, 0) / took, into: Math.max(into - intoBefore, 0) / took };
    });
    const [first, last] = [samples[0], samples.at(-1)];
    return { site, rates, out: last[1] - first[1], into: last[2] - first[2] };
  }).sort((a, b) => b.out + b.into - a.out - a.into);
}

function flowDrawing(view, flow, top, guides) {
  const [height, middle] = [76, 38];
  const y = (rate) => middle - (rate / top) * (middle - 4);
  const steps = (of) => flow.rates.flatMap((rate) => [[view.scale.x(rate.from), y(of(rate))], [view.scale.x(rate.to), y(of(rate))]]);
  const area = (line) => `${polyline(line)}L${line.at(-1)[0].toFixed(1)} ${middle}L${line[0][0].toFixed(1)} ${middle}Z`;
  const svg = drawing(view.scale, height, guides, `${flow.site}: ${bytes(flow.out)} out, ${bytes(flow.into)} in; at most ${bytes(most(flow.rates.map((rate) => rate.out)))}/s out, ${bytes(most(flow.rates.map((rate) => rate.into)))}/s in`);
  const [out, into] = [steps((rate) => rate.out), steps((rate) => -rate.into)];
  svg.append(shape("path", { class: "flow-out-area", d: area(out) }), shape("path", { class: "flow-in-area", d: area(into) }));
  svg.append(shape("line", { class: "flow-axis", x1: 0, x2: view.scale.width, y1: middle, y2: middle }));
  svg.append(shape("path", { class: "flow-out", d: polyline(out) }), shape("path", { class: "flow-in", d: polyline(into) }));
  const overlay = shape("rect", { x: 0, y: 0, width: view.scale.width, height, fill: "transparent" });
  overlay.addEventListener("pointermove", (event) => {
    const at = view.scale.at(event.clientX - svg.getBoundingClientRect().left);
    const rate = flow.rates.find((one) => at <= one.to) ?? flow.rates.at(-1);
    overlay.setAttribute("data-tip", `${flow.site} at ${clock(at)}\n↑ ${bytes(rate.out)}/s out\n↓ ${bytes(rate.into)}/s in`);
  });
  svg.append(overlay);
  return svg;
}

function linesGroup(view, report, guides, state, redraw) {
  const flows = flowsOf(report.outcome);
  if (flows.length === 0) return null;
  const top = most(flows.flatMap((flow) => flow.rates.map((rate) => Math.max(rate.out, rate.into)))) || 1;
  const shown = state.allLines ? flows : flows.slice(0, LINES_AT_FIRST);
  const rows = shown.map((flow, index) => lane(view, flow.site, `↑ ${bytes(flow.out)}  ↓ ${bytes(flow.into)}`.replace(/ (?=[^ ↓])/g, "\u00a0"), flowDrawing(view, flow, top, guides), index % 2 === 1 ? "odd" : ""));
  const groupOf = group("Lines of sites", `bytes a second, ↑ out of the site above and ↓ into it below its axis; all to the same scale: a row is ${bytes(top)}/s each way`, ...rows, axis(view));
  if (flows.length > shown.length) {
    const button = element("button", { type: "button" }, `Show all ${flows.length} lines`);
    button.addEventListener("click", () => { state.allLines = true; redraw(); });
    groupOf.append(element("div", { class: "clock-heading screen-only" }, button));
  }
  return groupOf;
}

// The pointer's time, over everything.
function followPointer(clockBox, inner, view) {
  const label = element("span");
  const cursor = element("div", { class: "cursor", hidden: true, "aria-hidden": "true" }, label);
  inner.append(cursor);
  clockBox.onpointermove = (event) => {
    const x = event.clientX - inner.getBoundingClientRect().left - view.labels;
    cursor.hidden = x < 0 || event.clientX - clockBox.getBoundingClientRect().left < view.labels;
    cursor.style.left = `${view.labels + x}px`;
    cursor.classList.toggle("left", x > view.scale.width - 80);
    label.textContent = clock(view.scale.at(x));
  };
  clockBox.onpointerleave = () => { cursor.hidden = true; };
}

function showTips() {
  const tip = document.getElementById("tip");
  const show = (event) => {
    const text = event.target.getAttribute?.("data-tip");
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);
}

function legend() {
  const run = (path, words) => element("li", null, shape("svg", { width: 26, height: 12, "aria-hidden": "true" }, shape("rect", { class: `run ${path}`, width: 26, height: 12 }), shape("rect", { class: "run-edge", x: 0.5, y: 0.5, width: 25, height: 11 })), words);
  return element("ul", { class: "legend" }, run("direct", "direct path"), run("relay", "relayed"), run("both", "both"), run("none", "no path"), run("untold", "tells of no paths"),
    element("li", null, shape("svg", { width: 26, height: 6, "aria-hidden": "true" }, shape("line", { class: "wait", x1: 0, x2: 26, y1: 3, y2: 3 })), "waits, and says for what"),
    element("li", null, shape("svg", { width: 26, height: 6, "aria-hidden": "true" }, shape("rect", { class: "still", y: 1, width: 26, height: 4 })), "no byte for more than 1 s"));
}

// For whoever cannot see the drawing, and for exact times.
function timelineAsText(report) {
  const rows = report.tracks.flatMap((track) => [
    ...track.spans.map((span) => ({ ...span, what: `${PATHS[span.path]}${span.path === "none" ? "" : `: ${span.words}`}` })),
    ...track.waits.map((wait) => ({ ...wait, what: `waited: ${wait.words}` })),
    ...track.standstills.map((wait) => ({ ...wait, what: wait.words })),
  ].sort((a, b) => a.from_s - b.from_s).map((row) => ({ ...row, process: track.process })));
  if (rows.length === 0) return null;
  const columns = [["process", (row) => row.process, "any-wrap"], ["from", (row) => clock(row.from_s), "right no-wrap"], ["to", (row) => clock(row.to_s), "right no-wrap"], ["took", (row) => seconds(row.to_s - row.from_s), "right no-wrap"], ["what", (row) => row.what, "any-wrap"]];
  const left = rows.length - MAX_ROWS_AS_TEXT;
  return element("details", null, element("summary", null, "Paths and waits as a table"), table(columns, rows.slice(0, MAX_ROWS_AS_TEXT), { caption: "Paths and waits" }), left > 0 ? element("p", { class: "muted small" }, `${left} more are in events.jsonl.`) : null);
}

function timelineCard(report) {
  const { outcome } = report;
  const began = outcome.steps.filter((step) => step.began_s !== null);
  if (began.length + outcome.processes.length + outcome.lines.length === 0) return null;
  const last = Math.max(outcome.took_seconds, most(began.map((step) => step.ended_s ?? step.began_s)), 0.1);
  const state = { zoom: 1, allLines: false, printing: false };
  const clockBox = element("div", { class: "clock", tabindex: 0, role: "group", "aria-label": "Timeline; scrolls sideways" });
  const draw = () => {
    const full = state.printing ? 680 : clockBox.clientWidth || 900;
    const labels = full < 560 ? 104 : 190;
    const scale = scaleOf(Math.max(full - labels, state.printing ? 0 : 440) * state.zoom, last);
    const view = { labels, scale };
    const guides = began.length <= MAX_GUIDES ? began : [];
    const inner = element("div", { class: "clock-inner" }, ...[
      began.length > 0 ? stepsGroup(view, began) : null,
      outcome.processes.length > 0 ? processesGroup(view, report, guides) : null,
      progressGroup(view, report, guides),
      linesGroup(view, report, guides, state, draw),
    ].filter((one) => one !== null));
    clockBox.style.setProperty("--visible", `${full}px`);
    inner.style.width = `${labels + scale.width}px`;
    clockBox.replaceChildren(inner);
    followPointer(clockBox, inner, view);
  };
  const zoom = element("select", null, [1, 2, 4, 8, 16].map((times) => element("option", { value: times }, times === 1 ? "all" : `${times} ×`)));
  zoom.addEventListener("change", () => {
    const middle = (clockBox.scrollLeft + clockBox.clientWidth / 2) / clockBox.scrollWidth;
    state.zoom = Number(zoom.value);
    draw();
    clockBox.scrollLeft = middle * clockBox.scrollWidth - clockBox.clientWidth / 2;
  });
  addEventListener("beforeprint", () => { state.printing = true; draw(); });
  addEventListener("afterprint", () => { state.printing = false; draw(); });
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width || state.printing) return;
    width = contentRect.width;
    draw();
  }).observe(clockBox);
  draw();
  showTips();
  const bar = element("div", { class: "bar" }, legend(), element("label", { class: "field screen-only" }, "Zoom", zoom));
  return card("Timeline", "All processes on one clock, from the beginning of the steps.", bar, clockBox, timelineAsText(report));
}

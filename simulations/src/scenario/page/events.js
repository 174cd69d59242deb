// The list of events, filtered.

const ROWS_AT_A_TIME = 100;
const PROGRESS = new Set(["fetching", "importing", "verifying"]);
const BAD = new Set(["failed", "step_failed", "damaged"]);

const kindOf = ({ event }) => (event !== null && typeof event === "object" ? String(event.event ?? "") : "output");

function eventWords(entry) {
  const { event } = entry;
  if (event === null || typeof event !== "object") return String(event);
  switch (event.event) {
    case "connected": return event.description;
    case "pinged": return event.path?.description;
    case "notice": case "stage": return event.message;
    case "failed": return event.advice ? `${event.message}; ${event.advice}` : event.message;
    case "fetching": case "importing": case "verifying": return `${bytes(event.done_bytes ?? 0)} of ${bytes(event.total_bytes ?? 0)}`;
    case "fetched": return `${bytes(event.size ?? 0)} in ${seconds(event.took_seconds ?? 0)}`;
    case "shared": return `${event.name}, ${bytes(event.size ?? 0)}`;
    case "step_began": case "step_done": case "step_failed": return event.step;
  }
  const { event: _, ...rest } = event;
  const text = JSON.stringify(rest);
  return text === "{}" ? "" : text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

function eventRow(entry) {
  const kind = kindOf(entry);
  const words = String(eventWords(entry) ?? "");
  const whole = entry.event !== null && typeof entry.event === "object";
  const details = element("details", null, element("summary", null, words || "(nothing more)"));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(element("pre", null, JSON.stringify(entry.event, null, 2)));
  });
  return element("tr", { class: BAD.has(kind) ? "bad" : entry.process === "runner" ? "runner" : null },
    element("td", { class: "right no-wrap mono" }, entry.at_s.toFixed(2)), element("td", { class: "any-wrap" }, entry.process),
    element("td", { class: "kind" }, BAD.has(kind) ? `✕ ${kind}` : kind), element("td", null, whole ? details : element("span", { class: "mono any-wrap output" }, words)));
}

function choice(label, first, values) {
  const select = element("select", null, first.map(([value, words]) => element("option", { value }, words)), [...values].map((value) => element("option", { value }, value)));
  return [element("label", { class: "field" }, label, select), select];
}

function eventsCard(report) {
  const entries = report.events;
  if (entries.length === 0) return null;
  const [byProcess, process] = choice("Process", [["", "all"]], new Set(entries.map((entry) => entry.process)));
  const [byKind, kind] = choice("Event", [["telling", "all but progress"], ["", "all"]], new Set(entries.map(kindOf)));
  const search = element("input", { type: "search", placeholder: "text", "aria-label": "Text to look for" });
  const count = element("span", { class: "muted small", role: "status" });
  const more = element("button", { type: "button", class: "screen-only" });
  const body = element("tbody");
  let [shown, found] = [ROWS_AT_A_TIME, []];
  const texts = entries.map((entry) => JSON.stringify(entry.event).toLowerCase());
  const draw = () => {
    body.replaceChildren(...found.slice(0, shown).map(eventRow));
    count.textContent = found.length === entries.length ? plural(found.length, "event", "events") : `${found.length.toLocaleString("en")} of ${plural(entries.length, "event", "events")}`;
    more.hidden = found.length <= shown;
    more.textContent = `Show ${Math.min(ROWS_AT_A_TIME, found.length - shown)} more`;
  };
  const isOfKind = (entry) => (kind.value === "telling" ? !PROGRESS.has(kindOf(entry)) : !kind.value || kindOf(entry) === kind.value);
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    found = entries.filter((entry, index) => (!process.value || entry.process === process.value) && isOfKind(entry) && (!wanted || texts[index].includes(wanted)));
    shown = ROWS_AT_A_TIME;
    draw();
  };
  [process, kind, search].forEach((one) => one.addEventListener("input", filter));
  more.addEventListener("click", () => { shown += ROWS_AT_A_TIME; draw(); });
  filter();
  const missing = report.events_in_all - entries.length;
  const head = element("tr", null, ["s", "process", "event", "what"].map((title, index) => element("th", { scope: "col", class: index === 0 ? "right" : null }, title)));
  return card("Events", null,
    missing > 0 ? element("p", { class: "note" }, `${missing.toLocaleString("en")} of ${plural(report.events_in_all, "event", "events")} are not in this page (first such as only say how far something has come); all are in events.jsonl.`) : null,
    element("div", { class: "bar screen-only" }, byProcess, byKind, search, count),
    element("div", { class: "scroll" }, element("table", { class: "events stack", "aria-label": "Events" }, element("thead", null, head), body)), more);
}

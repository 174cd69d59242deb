// The verdict, and everything of a run that is a table.

function ending(outcome) {
  const all = outcome.expectations.length;
  const failed = outcome.expectations.filter((one) => one.held === false).length;
  if (outcome.verdict === "broken") return "The run could not go on; nothing was judged";
  if (outcome.verdict === "held") return all === 1 ? "The expectation held" : `All ${all} expectations held`;
  return all === 1 ? "The expectation did not hold" : `${failed} of ${all} expectations did not hold`;
}

function header(outcome) {
  const values = Object.entries(outcome.values).map(([name, value]) => [name, value]);
  return element("header", null,
    element("p", { class: "eyebrow" }, "Keyferry scenario"),
    element("h1", null, outcome.scenario),
    element("p", { class: "question any-wrap" }, outcome.question),
    element("div", { class: `verdict ${outcome.verdict}` }, icon(outcome.verdict),
      element("div", null, element("strong", null, ending(outcome)), ending(outcome).toLowerCase() === outcome.summary.toLowerCase() ? null : element("p", null, outcome.summary))),
    facts([...values, ["took", seconds(outcome.took_seconds)], ["engine", outcome.engine], ["seed", String(outcome.seed)], ["began", outcome.began.replace("T", " ").replace("Z", " UTC")]]));
}

function expectationsCard(outcome) {
  const order = { failed: 0, unknown: 1, held: 2 };
  const sorted = outcome.expectations.map((one, index) => ({ ...one, index })).sort((a, b) => order[judged(a.held)] - order[judged(b.held)] || a.index - b.index);
  const count = (held) => sorted.filter((one) => judged(one.held) === held).length;
  const about = [["held", "held"], ["failed", "did not hold"], ["unknown", "not judged"]].filter(([kind]) => count(kind) > 0).map(([kind, words]) => `${count(kind)} ${words}`).join(", ");
  const columns = [
    ["expected", (one) => one.words, "any-wrap"],
    ["verdict", (one) => badge(judged(one.held))],
    ["seen", (one) => one.seen, "any-wrap"],
    ["where", (one) => element("code", { class: "muted" }, one.place), "no-wrap"],
  ];
  if (sorted.length === 0) return card("Expectations", "The scenario has none.");
  return card("Expectations", `${about}.`, table(columns, sorted, { caption: "Expectations", rowClass: (one) => (one.held === false ? "failing" : null) }));
}

function stepsCard(outcome) {
  const columns = [
    ["step", (step) => step.name, "any-wrap"],
    ["what", (step) => [step.words, step.error ? element("p", null, element("span", { class: "badge failed" }, icon("failed"), "could not be done"), " ", step.error) : null], "any-wrap"],
    ["began", (step) => (step.began_s === null ? "never" : clock(step.began_s)), "right no-wrap"],
    ["ended", (step) => clock(step.ended_s), "right no-wrap"],
    ["took", (step) => (step.began_s === null || step.ended_s === null ? "" : seconds(step.ended_s - step.began_s)), "right no-wrap"],
    ["where", (step) => element("code", { class: "muted" }, step.place), "no-wrap"],
  ];
  return outcome.steps.length === 0 ? null : card("Steps", null, table(columns, outcome.steps, { caption: "Steps", rowClass: (step) => (step.error ? "failing" : null) }));
}

function endOf(run) {
  if (run.signal !== null) return `signal ${run.signal}`;
  if (run.code !== null) return `exit code ${run.code}`;
  return "running at the end";
}

function processesCard(outcome) {
  const runs = outcome.processes.flatMap((process) => process.runs.map((run, index) => ({ ...run, process, index })));
  const memory = most(runs.map((run) => run.peak_resident_bytes));
  const cpu = most(runs.map((run) => run.cpu_seconds));
  const name = ({ process, index }) => (process.runs.length === 1 ? process.name : `${process.name} (${index + 1} of ${process.runs.length})`);
  const columns = [
    ["process", name, "any-wrap"],
    ["command", (run) => element("code", null, run.process.command), "any-wrap"],
    ["began", (run) => clock(run.began_s), "right no-wrap"],
    ["ran for", (run) => seconds((run.ended_s ?? outcome.took_seconds) - run.began_s), "right no-wrap"],
    ["end", (run) => (run.code !== null && run.code !== 0 ? element("span", { class: "badge failed" }, icon("failed"), endOf(run)) : endOf(run)), "no-wrap"],
    ["peak memory", (run) => [element("span", null, bytes(run.peak_resident_bytes)), meter(run.peak_resident_bytes, memory)], "right no-wrap"],
    ["CPU", (run) => [element("span", null, seconds(run.cpu_seconds)), meter(run.cpu_seconds, cpu)], "right no-wrap"],
  ];
  const summary = `${plural(outcome.processes.length, "process", "processes")}, ${bytes(memory)} resident in one at most, ${seconds(total(runs.map((run) => run.cpu_seconds)))} of CPU time in all.`;
  const shown = table(columns, runs, { caption: "Processes" });
  return runs.length === 0 ? null : card("Processes", summary, runs.length > 12 ? element("details", null, element("summary", null, `Show all ${runs.length} runs`), shown) : shown);
}

function figuresCard(outcome) {
  const columns = [["what", (figure) => figure.name, "any-wrap"], ["value", (figure) => number(figure.value), "right no-wrap"], ["unit", (figure) => figure.unit]];
  return outcome.figures.length === 0 ? null : card("Figures", "Measured besides.", element("div", { class: "narrow-table" }, table(columns, outcome.figures, { caption: "Figures" })));
}

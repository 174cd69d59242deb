// The page about one run.

document.title = `${data.outcome.scenario}: ${WORDS[data.outcome.verdict]}`;
page.replaceChildren(...[
  header(data.outcome),
  expectationsCard(data.outcome),
  topologyCard(data.outcome),
  timelineCard(data),
  stepsCard(data.outcome),
  processesCard(data.outcome),
  figuresCard(data.outcome),
  eventsCard(data),
  element("footer", null, "Made by keyferry-sim. This page is complete in itself: it loads nothing and sends nothing."),
].filter((one) => one !== null));

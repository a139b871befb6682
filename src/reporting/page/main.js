// Reads the data, builds the controls, and draws everything again when a filter changes.

function refresh() {
  const shown = data.points.filter(passes);
  if (shown.length && !shown.some((point) => point.panel === state.panel)) state.panel = shown[0].panel;
  showControls();
  showTable();
  showPlot();
  showTranscripts();
}

function showFilters() {
  const selects = Object.entries(FILTERS).map(([name, label]) => {
    const options = [["", "all"], ...data.orders[name].map((each) => [each, each])];
    return choice(label, options, state.filters[name] || "", (value) => { state.filters[name] = value; refresh(); });
  });
  const search = make("input", { type: "search", value: state.text, on: { input: (event) => { state.text = event.target.value; refresh(); } } });
  byId("filters").replaceChildren(...selects, make("div", {}, make("label", {}, "Search", search)));
}

function showControls() {
  const panels = data.panels.map((name, number) => [String(number), name]);
  const costs = Object.entries(COSTS).map(([name, about]) => [name, about.label]);
  const log = make("input", { type: "checkbox", id: "log", on: { change: (event) => { state.log = event.target.checked; showPlot(); } } });
  const focused = document.activeElement && document.activeElement.closest("#plot-controls") ? [...document.querySelectorAll("#plot-controls select")].indexOf(document.activeElement) : -1;
  byId("plot-controls").replaceChildren(
    choice("Model and test set", panels, String(state.panel), (value) => { state.panel = Number(value); state.log = null; refreshPlot(); }),
    choice("Cost", costs, state.cost, (value) => { state.cost = value; refreshPlot(); }),
    make("div", {}, make("label", { class: "check" }, log, "Logarithmic error rate")),
  );
  if (focused >= 0) document.querySelectorAll("#plot-controls select")[focused].focus();
}

function refreshPlot() {
  showControls();
  showPlot();
}

// Sections with nothing to show go, and the links to them.
function hide(...names) {
  for (const name of names) {
    byId(name).hidden = true;
    for (const link of document.querySelectorAll(`a[href="#${name}"]`)) link.hidden = true;
  }
}

function start() {
  data = JSON.parse(byId("data").textContent);
  for (const metric of data.metrics) if (metric.cost) COSTS[metric.name] = metric;
  COSTS.wbits = { label: "Weight bits", scale: 1 };
  byId("summary").textContent = `${plural(data.points.length, "point")}, ${plural(data.failures.length, "failure")}.`;
  byId("notes").replaceChildren(...data.notes.map((note) => make("li", {}, note)));
  byId("notes").hidden = !data.notes.length;
  showFailures();
  if (data.races.length) showRaces();
  else hide("races");
  if (!data.points.length) {
    hide("filters", "plot", "points");
    showTranscripts();
    return;
  }
  addColumns();
  showFilters();
  refresh();
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", () => { state.filters = {}; state.text = ""; state.hidden.clear(); showFilters(); refresh(); document.querySelector("#filters select").focus(); });
  let width = byId("figure").clientWidth;
  window.addEventListener("resize", () => { if (byId("figure").clientWidth !== width) { width = byId("figure").clientWidth; showPlot(); } });
}

try {
  start();
} catch (error) {
  hide("filters", "plot", "points", "races", "transcripts", "failed");
  byId("trouble").hidden = false;
  byId("trouble").textContent = `This page cannot show its data (${error.message}). Make it again with python -m src.report.`;
}

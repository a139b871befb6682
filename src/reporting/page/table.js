// The table: a row a point, sorted by a press on a heading.

const percent = (edit) => ({ number: true, value: (p) => share(p, edit), text: (p) => fixed(share(p, edit), 1) });
const count = (name) => ({ number: true, value: (p) => p[name], text: (p) => (known(p[name]) ? String(p[name]) : "–") });
const between = (p, name) => (known(p[`${name}_low`]) ? ` (${fixed(p[`${name}_low`], 1)}–${fixed(p[`${name}_high`], 1)})` : "");
const named = (name) => ({ number: false, value: (p) => data.orders[name].indexOf(p[name]), text: (p) => p[name] });

const COLUMNS = {
  model: { label: "Model", ...named("model") },
  dataset: { label: "Test set", ...named("dataset") },
  series: { label: "Method", number: false, value: (p) => data.series.findIndex((each) => each.name === p.series), text: (p) => p.series },
  bits: { label: "Bits", ...named("bits") },
  wer: { label: "WER %", number: true, value: (p) => p.wer, text: (p) => `${fixed(p.wer, 2)}${between(p, "wer")}${metrics(data.points) === p.metric ? "" : ` ${p.metric}`}` },
  diff: { label: "vs fp", number: true, value: (p) => p.diff, text: (p) => signed(p.diff) + star(p), style: (p) => (p.diff_significant ? (p.diff > 0 ? "worse" : "better") : null) },
};
const FAILURES = {
  substitutions: { label: "S", ...percent("substitutions") },
  deletions: { label: "D", ...percent("deletions") },
  insertions: { label: "I", ...percent("insertions") },
  loops: { label: "Loops", ...count("loops") },
  empty: { label: "Empty", ...count("empty") },
  capped: { label: "Cut off", ...count("capped") },
  changed_transcripts: { label: "Changed", ...count("changed_transcripts") },
};
const VERSIONS = { data: "Data", weights: "Weights", normalizer: "Normalizer", scorer: "Scorer", schema: "Schema", code: "Code", commit: "Commit", packages: "Packages", machine: "Machine" };

// Metrics that are known, and what differs among the points, so that nothing is compared unawares.
function addColumns() {
  COLUMNS.wer.label = `${metrics(data.points) || "WER"} %`;
  for (const metric of data.metrics) {
    const { name, heading, cost } = metric;
    if (!COLUMNS[name] && heading && data.points.some((p) => known(p[name])))
      COLUMNS[name] = { label: cost ? heading : `${heading} %`, number: true, value: (p) => p[name], text: (p) => told(metric, p) + between(p, name) };
  }
  Object.assign(COLUMNS, FAILURES);
  for (const [name, label] of Object.entries(VERSIONS)) {
    const perName = new Map();
    for (const point of data.points) {
      const of = name === "data" ? point.dataset : name === "weights" ? point.model : "";
      perName.set(of, (perName.get(of) || new Set()).add(point[name]));
    }
    if ([...perName.values()].some((values) => values.size > 1))
      COLUMNS[name] = { label, number: false, value: (p) => p[name], text: (p) => String(p[name]) };
  }
}

function compare(one, other) {
  const [a, b] = [one, other].map(COLUMNS[state.sort].value);
  if (!known(a) || !known(b)) return known(a) ? -1 : known(b) ? 1 : 0; // the unknown comes last either way
  return (state.descending ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0);
}

function sortBy(name) {
  state.descending = state.sort === name && !state.descending;
  state.sort = name;
  showTable();
  byId(`sort-${name}`).focus();
}

function headings() {
  const cells = Object.entries(COLUMNS).map(([name, column]) => {
    const order = state.sort === name ? (state.descending ? "descending" : "ascending") : null;
    const button = make("button", { type: "button", id: `sort-${name}`, on: { click: () => sortBy(name) } }, column.label);
    return make("th", { scope: "col", "aria-sort": order, class: column.number ? null : "name" }, button);
  });
  return make("thead", {}, make("tr", {}, ...cells));
}

function cells(point) {
  return Object.entries(COLUMNS).map(([name, column]) => {
    const text = column.text(point);
    if (name === "changed_transcripts" && rowsOf(point).length) {
      const label = `${plural(point.changed_transcripts, "transcript")} changed: ${title(point)}`;
      return make("td", {}, make("button", { type: "button", "aria-label": label, on: { click: () => choose(point, true) } }, text));
    }
    const style = [column.number ? null : "name", column.style ? column.style(point) : null].filter(Boolean).join(" ");
    return name === "series" ? make("th", { scope: "row", class: "name" }, text) : make("td", { class: style || null }, text);
  });
}

function showTable() {
  const shown = data.points.filter(passes).sort(compare);
  const body = make("tbody");
  for (const point of shown) body.append(make("tr", { "data-point": point.fingerprint, class: point === state.chosen ? "chosen" : null }, ...cells(point)));
  byId("table").replaceChildren(make("caption", { class: "hint" }, `${shown.length} of ${plural(data.points.length, "point")}`), headings(), body);
  byId("nothing").hidden = shown.length > 0 || data.points.length === 0;
}

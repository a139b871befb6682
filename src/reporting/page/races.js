// Races for the best within a budget: a plot of sizes against error rates and a table each, and what foretold them.

const heardOn = (clips) => (clips === null ? "all" : String(clips));
const last = (candidate) => candidate.rounds[candidate.rounds.length - 1];
const interval = (round) => `${fixed(round.wer, 2)} (${fixed(round.wer_low, 1)}–${fixed(round.wer_high, 1)})`;

function showRaces() {
  byId("race-list").replaceChildren(...data.races.map(raceArticle));
}

function raceArticle(race) {
  const models = [...new Set(race.candidates.filter((each) => known(each.model)).map((each) => each.model))].sort();
  const about = `${plural(race.candidates.length, "candidate")}, ${plural(race.heard, "utterance")} decoded. In common: ${race.fixed.join(" ") || "nothing"}.${race.export ? ` Exported to ${race.export}.` : ""}`;
  const legend = models.map((model, number) => make("span", {}, draw("svg", { viewBox: "0 0 14 14", "aria-hidden": "true", class: `c${number % 7}` }, shape(number % 9, 7, 7, 5)), ` ${model}`));
  return make(
    "article",
    {},
    make("h3", {}, race.title),
    make("p", { class: "hint" }, about),
    racePlot(race, models),
    make("p", { class: "legend" }, ...legend),
    candidateTable(race),
    race.agreements.length ? agreementTable(race) : null,
  );
}

function candidateTable(race) {
  const header = ["Candidate", "MB", ...race.rounds.map((clips) => `${race.metric}, ${heardOn(clips)}`), "Front", "Outcome"];
  const rows = race.candidates.map((each) => raceRow(race, each));
  return tableOf(header, rows, [0, header.length - 1], race.candidates.findIndex((each) => each.chosen));
}

function raceRow(race, candidate) {
  const heard = new Map(candidate.rounds.map((round) => [round.clips, round]));
  const rates = race.rounds.map((clips) => (!heard.has(clips) ? "–" : heard.get(clips) === last(candidate) ? interval(heard.get(clips)) : fixed(heard.get(clips).wer, 2)));
  return [candidate.name, fixed(candidate.megabytes, 2), ...rates, candidate.front ? "front" : "", candidate.outcome];
}

function agreementTable(race) {
  const rows = new Map();
  for (const each of race.agreements) {
    const key = JSON.stringify([each.proxy, each.model]);
    if (!rows.has(key)) rows.set(key, [each.proxy, each.model || "all", ...race.rounds.map(() => "–")]);
    rows.get(key)[2 + race.rounds.indexOf(each.clips)] = `${signed(each.spearman)} (${each.candidates})`;
  }
  return make("div", {}, make("p", { class: "hint" }, "Spearman's rank correlation with the error rate of each round, and of how many candidates:"), tableOf(["Foretold by", "Model", ...race.rounds.map(heardOn)], [...rows.values()], [0, 1], -1));
}

// Cells are texts; `words` are columns that are not numbers, `chosen` is a row.
function tableOf(header, rows, words, chosen) {
  const style = (column) => (words.includes(column) ? "name" : null);
  const head = make("thead", {}, make("tr", {}, ...header.map((each, column) => make("th", { scope: "col", class: style(column) }, each))));
  const cells = (row) => row.map((each, column) => make(column ? "td" : "th", { scope: column ? null : "row", class: style(column) }, each));
  const body = rows.map((row, number) => make("tr", { class: number === chosen ? "chosen" : null }, ...cells(row)));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": header[0] }, make("table", { class: "plain" }, head, make("tbody", {}, ...body)));
}

function racePlot(race, models) {
  const heard = race.candidates.filter((each) => each.rounds.length);
  if (!heard.length) return null;
  const [width, height] = [720, 340];
  const rates = heard.map((each) => last(each).wer);
  const log = Math.min(...rates) > 0 && Math.max(...rates) > 4 * Math.min(...rates);
  const low = Math.min(...heard.map((each) => last(each).wer_low));
  const sizes = [...heard.map((each) => each.megabytes), ...(known(race.bounds.megabytes) ? [race.bounds.megabytes] : [])];
  const pad = (Math.max(...sizes) - Math.min(...sizes)) * 0.05 || 1;
  const scale = {
    x: axis(Math.min(...sizes) - pad, Math.max(...sizes) + pad, MARGIN.left, width - MARGIN.right, false),
    y: axis(log ? Math.max(low, Math.min(...rates) / 4) * 0.9 : Math.max(low - 0.5, 0), Math.max(...heard.map((each) => last(each).wer_high)) * 1.1 + 0.1, height - MARGIN.bottom, MARGIN.top, log),
  };
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${race.title}: ${race.metric} against MB; the table has the figures` });
  grid(svg, scale, width, height, "file, MB", `${race.metric}, %`);
  if (known(race.bounds.megabytes)) svg.append(draw("line", { class: "fp", x1: scale.x(race.bounds.megabytes), x2: scale.x(race.bounds.megabytes), y1: MARGIN.top, y2: height - MARGIN.bottom }));
  if (known(race.bounds.wer)) svg.append(draw("line", { class: "fp", x1: MARGIN.left, x2: width - MARGIN.right, y1: scale.y(race.bounds.wer), y2: scale.y(race.bounds.wer) }));
  const at = (each) => [scale.x(each.megabytes), scale.y(last(each).wer)];
  const front = heard.filter((each) => each.front).sort((a, b) => a.megabytes - b.megabytes || last(a).wer - last(b).wer);
  svg.append(draw("path", { class: "front", d: `M${front.map((each) => at(each).join(",")).join("L")}` }));
  for (const each of heard) {
    const [x, y] = at(each);
    const number = models.indexOf(each.model);
    const part = last(each).clips === null ? "" : " part";
    const mark = draw("g", { class: `c${number % 7}${part}` }, draw("title", {}, `${each.name}: ${fixed(each.megabytes, 2)} MB, ${interval(last(each))} on ${heardOn(last(each).clips)} clips. ${each.outcome}`));
    mark.append(draw("line", { class: "bar", x1: x, x2: x, y1: scale.y(Math.max(last(each).wer_low, scale.y.low)), y2: scale.y(last(each).wer_high) }), shape(number % 9, x, y, 5));
    if (each.chosen) mark.append(draw("circle", { class: "ring", cx: x, cy: y, r: 10 }));
    svg.append(mark);
  }
  return svg;
}

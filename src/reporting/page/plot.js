// The plot: points of one panel, error rate against a cost. Points of different panels are never in one plot.

const MARGIN = { left: 46, right: 14, top: 12, bottom: 40 };

function ticks(low, high, most) {
  const step = 10 ** Math.floor(Math.log10((high - low) / most || 1));
  const factor = [1, 2, 5, 10].find((each) => (high - low) / (step * each) <= most) || 10;
  const found = [];
  for (let value = Math.ceil(low / (step * factor)); value * step * factor <= high; value++) found.push(value * step * factor);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const digit of [1, 2, 5]) if (digit * 10 ** power >= low && digit * 10 ** power <= high) found.push(digit * 10 ** power);
  return found.length > 2 ? found : ticks(low, high, 6);
}

function axis(low, high, start, end, log) {
  const to = log ? Math.log : (value) => value;
  const at = (value) => start + ((to(value) - to(low)) / (to(high) - to(low) || 1)) * (end - start);
  return Object.assign(at, { ticks: log ? logTicks(low, high) : ticks(low, high, Math.abs(end - start) / 70), low });
}

function front(points) {
  const byCost = [...points].sort((a, b) => a[state.cost] - b[state.cost] || a.wer - b.wer);
  let lowest = Infinity;
  return byCost.filter((point) => point.wer < lowest && ((lowest = point.wer), true));
}

function scales(points, width, height) {
  const errors = points.flatMap((p) => [p.wer, p.fp_wer]);
  const wide = Math.min(...errors) > 0 && Math.max(...errors) > 4 * Math.min(...errors);
  const log = state.log === null ? wide : state.log && Math.min(...errors) > 0;
  byId("log").checked = log;
  const unit = COSTS[state.cost].scale;
  const costs = points.map((p) => p[state.cost] / unit);
  const pad = (Math.max(...costs) - Math.min(...costs)) * 0.05 || 1;
  const low = Math.min(...points.map((p) => p.wer_low), ...errors);
  const bottom = log ? Math.max(low, Math.min(...errors) / 4) * 0.9 : Math.max(low - 0.5, 0);
  const top = Math.max(...points.map((p) => p.wer_high), ...errors) * (log ? 1.1 : 1.03) + (log ? 0 : 0.1);
  return {
    x: axis(Math.min(...costs) - pad, Math.max(...costs) + pad, MARGIN.left, width - MARGIN.right, false),
    y: axis(bottom, top, height - MARGIN.bottom, MARGIN.top, log),
    unit,
  };
}

function grid(svg, { x, y }, width, height, across, upward) {
  const label = (value) => String(Number(value.toPrecision(6)));
  for (const value of x.ticks) {
    svg.append(draw("line", { class: "grid", x1: x(value), x2: x(value), y1: MARGIN.top, y2: height - MARGIN.bottom }));
    svg.append(draw("text", { x: x(value), y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, label(value)));
  }
  for (const value of y.ticks) {
    svg.append(draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    svg.append(draw("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, label(value)));
  }
  svg.append(draw("text", { x: (MARGIN.left + width) / 2, y: height - 4, "text-anchor": "middle" }, across));
  svg.append(draw("text", { x: 12, y: height / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${height / 2})` }, upward));
}

function about(point) {
  const lines = [title(point), `${point.metric} ${fixed(point.wer, 2)} % (${fixed(point.wer_low, 2)} to ${fixed(point.wer_high, 2)})`];
  lines.push(`against fp ${signed(point.diff)} (${signed(point.diff_low)} to ${signed(point.diff_high)})${point.diff_significant ? ", significant" : ", not significant"}`);
  for (const each of data.metrics)
    if (each.cost && each.heading && known(point[each.name])) lines.push(`${each.label}: ${told(each, point)}`);
  if (known(point.changed_transcripts)) lines.push(`${point.changed_transcripts} of ${plural(point.utterances, "transcript")} changed`);
  return lines.join("\n");
}

function pointMark(point, x, y) {
  const look = data.series.find((each) => each.name === point.series);
  const node = draw("g", { class: `point c${look.colour}`, tabindex: -1, role: "button", "aria-label": about(point) });
  node.append(draw("circle", { class: "ring", cx: x, cy: y, r: 9 }), shape(look.shape, x, y, 5));
  const show = () => showTip(node, about(point));
  for (const event of ["focus", "mouseenter"]) node.addEventListener(event, show);
  for (const event of ["blur", "mouseleave"]) node.addEventListener(event, hideTip);
  node.addEventListener("click", () => choose(point, false));
  node.addEventListener("keydown", (event) => walk(event, node, point));
  return node;
}

function walk(event, node, point) {
  const marks = [...node.parentNode.querySelectorAll(".point")];
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") hideTip();
  else if (event.key === "Enter" || event.key === " ") choose(point, true);
  else if (event.key === "Home") focusMark(marks, marks[0]);
  else if (event.key === "End") focusMark(marks, marks[marks.length - 1]);
  else if (step) focusMark(marks, marks[(marks.indexOf(node) + step + marks.length) % marks.length]);
  else return;
  event.preventDefault();
}

function focusMark(marks, next) {
  for (const mark of marks) mark.setAttribute("tabindex", mark === next ? 0 : -1);
  next.focus();
}

function showTip(node, text) {
  const tip = byId("tooltip");
  tip.textContent = text;
  tip.hidden = false;
  const at = node.getBoundingClientRect();
  const left = Math.min(Math.max(at.left + 14, 8), document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${(above > 0 ? above : at.bottom + 8) + window.scrollY}px`;
}

function hideTip() {
  byId("tooltip").hidden = true;
}

function inPlot() {
  const panel = data.points.filter((point) => point.panel === state.panel && passes(point) && known(point[state.cost]));
  return panel.filter((point) => !state.hidden.has(point.series));
}

function showPlot() {
  hideTip();
  const points = inPlot();
  showLegend();
  if (!points.length) {
    byId("figure").replaceChildren(make("p", { class: "note" }, "Nothing to plot: no point of this model and test set passes the filters and has this cost."));
    return;
  }
  const width = Math.max(byId("figure").clientWidth, 280);
  const height = Math.round(Math.min(Math.max(width * 0.55, 300), 520));
  const scale = scales(points, width, height);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${data.panels[state.panel]}: ${metrics(points)} against ${COSTS[state.cost].label}` });
  grid(svg, scale, width, height, COSTS[state.cost].label, `${metrics(points)}, %`);
  for (const value of new Set(points.map((point) => point.fp_wer)))
    svg.append(draw("line", { class: "fp", x1: MARGIN.left, x2: width - MARGIN.right, y1: scale.y(value), y2: scale.y(value) }));
  const at = (point) => [scale.x(point[state.cost] / scale.unit), scale.y(point.wer)];
  const steps = front(points).map(at).map(([x, y], number) => (number ? `H${x}V${y}` : `M${x},${y}`));
  svg.append(draw("path", { class: "front", d: `${steps.join("")}H${width - MARGIN.right}` }));
  const ordered = [...points].sort((a, b) => a[state.cost] - b[state.cost] || a.wer - b.wer);
  for (const point of ordered) {
    const look = data.series.find((each) => each.name === point.series);
    const [x] = at(point);
    const low = scale.y(Math.max(point.wer_low, scale.y.low));
    svg.append(draw("line", { class: `bar c${look.colour}`, x1: x, x2: x, y1: low, y2: scale.y(point.wer_high) }));
  }
  for (const point of ordered) svg.append(pointMark(point, ...at(point)));
  svg.querySelector(".point").setAttribute("tabindex", 0);
  byId("figure").replaceChildren(svg);
}

function showLegend() {
  const present = new Set(data.points.filter((point) => point.panel === state.panel && passes(point)).map((point) => point.series));
  const buttons = data.series.filter((each) => present.has(each.name)).map((each) => {
    const icon = draw("svg", { viewBox: "0 0 14 14", "aria-hidden": "true", class: `c${each.colour}` }, shape(each.shape, 7, 7, 5));
    const toggle = () => {
      if (!state.hidden.delete(each.name)) state.hidden.add(each.name);
      showPlot();
      byId(`series-${data.series.indexOf(each)}`).focus();
    };
    const id = `series-${data.series.indexOf(each)}`;
    return make("button", { type: "button", id, "aria-pressed": String(!state.hidden.has(each.name)), on: { click: toggle } }, icon, each.name);
  });
  byId("legend").replaceChildren(...buttons);
}

// Transcripts of the chosen point, word by word, with their audio; and the points that failed.

const listed = () => data.points.filter((point) => rowsOf(point).length);

function choose(point, go) {
  state.chosen = point;
  showTranscripts();
  for (const row of document.querySelectorAll("#table tbody tr")) row.classList.toggle("chosen", row.dataset.point === point.fingerprint);
  if (!go) return;
  byId("transcripts").scrollIntoView();
  byId("transcripts").focus({ preventScroll: true });
}

// Parts are texts that are the same on both sides, or [only before, only after].
function words(parts) {
  const nodes = [];
  for (const part of parts) {
    const [before, after] = Array.isArray(part) ? part : [null, null];
    if (before === null) nodes.push(part);
    if (before) nodes.push(make("del", {}, before));
    if (before && after) nodes.push(" ");
    if (after) nodes.push(make("ins", {}, after));
    nodes.push(" ");
  }
  return nodes.length ? nodes : [make("em", {}, "nothing")];
}

const said = (parts) => parts.map((part) => (Array.isArray(part) ? part[1] : part)).filter(Boolean).join(" ");

function sound(utterance) {
  if (!known(utterance.audio)) return make("p", { class: "hint" }, `No audio here: ${utterance.silent || "none was asked for"}.`);
  return make("audio", { controls: true, preload: "none", src: `data:audio/flac;base64,${data.audio[utterance.audio]}`, "aria-label": `Audio of ${utterance.id}` });
}

function entry([number, errors, toReference, toFp]) {
  const utterance = data.utterances[number];
  const fp = utterance.fp;
  const own = state.against === "reference" ? words(toReference) : words(toFp);
  const base = state.against === "reference" ? words(fp) : [said(fp) || make("em", {}, "nothing")];
  const terms = [
    ["Reference", [utterance.reference || make("em", {}, "nothing")]],
    ...(utterance.published === utterance.reference ? [] : [["As published", [utterance.published]]]),
    [`Full precision, ${plural(utterance.errors, "error")}`, base],
    [`This point, ${plural(errors, "error")}`, own],
  ];
  const list = make("dl", {}, ...terms.flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, ...text)]));
  return make("li", {}, make("code", {}, utterance.id), list, sound(utterance));
}

function showTranscripts() {
  const points = listed();
  const options = points.filter(passes);
  const about = byId("transcripts-about");
  if (!points.length) {
    byId("transcript-controls").replaceChildren();
    about.textContent = data.points.length ? "No transcript that changed against full precision is stored." : "There are no evaluated points.";
    byId("transcript-list").replaceChildren();
    return;
  }
  if (!state.chosen) state.chosen = options.reduce((worst, each) => (!worst || each.diff > worst.diff ? each : worst), null) || points[0];
  const offered = options.includes(state.chosen) ? options : [state.chosen, ...options];
  const names = offered.map((point) => [point.fingerprint, `${title(point)} (${point.changed_transcripts} changed)`]);
  const sides = [["reference", "the reference"], ["fp", "full precision"]];
  byId("transcript-controls").replaceChildren(
    choice("Point", names, state.chosen.fingerprint, (name) => choose(points.find((each) => each.fingerprint === name), false)),
    choice("Differences to", sides, state.against, (side) => { state.against = side; showTranscripts(); }),
  );
  const rows = rowsOf(state.chosen);
  const point = state.chosen;
  about.textContent = `${title(point)}: ${point.changed_transcripts} of ${plural(point.utterances, "transcript")} changed, ${point.changed_better} better, ${point.changed_worse} worse. Shown: ${rows.length}, most errors more than full precision first. Struck out: missing from the transcript; underlined: written instead or in addition. Texts are as they were scored, after normalisation; the reference as it was published stands below where it differs.`;
  byId("transcript-list").replaceChildren(...rows.map(entry));
}

function showFailures() {
  const items = data.failures.map((each) => {
    const name = [each.model, each.method, each.bits, each.dataset].filter(Boolean).join(", ") || each.fingerprint;
    const facts = [["Stage", each.stage || "before the first stage"], ["Why", each.reason], ["Kind", each.kind], ["Seed", known(each.seed) ? String(each.seed) : null], ["Time", each.time], ["Log", each.log]];
    const list = make("dl", {}, ...facts.filter(([, text]) => text).flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]));
    const again = each.overrides && each.overrides.length ? make("p", {}, make("code", {}, `python -m src.main ${each.overrides.map(quoted).join(" ")}`)) : null;
    const trace = each.traceback ? make("details", {}, make("summary", {}, "Traceback"), make("pre", {}, each.traceback)) : null;
    return make("article", {}, make("h3", {}, name), list, again, trace);
  });
  byId("failure-list").replaceChildren(...(items.length ? items : [make("p", { class: "hint" }, "No point failed.")]));
}

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

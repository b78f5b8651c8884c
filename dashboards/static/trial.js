// The page of one trial, drawn from its JSON twin, and drawn again while the trial runs.
"use strict";

const AGAIN_MS = 2000;
const UNFINISHED = ["running", "interrupted"];
const twin = byId("trial").dataset.twin;
let trial = null; // the JSON twin as it was last read
const ASKS = { budget: /^(\d+(\.\d+)?|\.\d+)(%|ms)$/, max_accuracy_drop: /^\d+(\.\d+)?%$/ };
const asks = Object.keys(ASKS).map(name => ({ name, value: new URLSearchParams(location.search).get(name) ?? "" }));
const wanted = asks.find(({ name, value }) => ASKS[name].test(value)); // what the study page was asked for when it led here
const wantedText = () => wanted.name === "budget" ? wanted.value : t("study.loss_of", { points: wanted.value.slice(0, -1) });
let received = ""; // its text, to see whether anything is new

// --- words and numbers ---
const notYet = () => UNFINISHED.includes(trial.state) ? t(`trial.measured.${trial.state}`) : null;
const nats = value => value >= 0.01 ? value.toFixed(3) : value.toPrecision(2);
const FORMATS = {
  accuracy: percent, accuracy_drop: percent, divergence: nats, latency_ratio: percent, latency_ms: milliseconds, macs, parameters: macs, throughput: perSecond,
  memory: megabytes,
};
const IN_IMAGES = ["accuracy", "accuracy_drop", "divergence"];
const IN_ROUNDS = ["latency_ratio", "latency_ms", "throughput"];

function phaseName(phase) { // a front that was timed again on a device has a phase for it
  if (phase.startsWith("device:")) return t("trial.phases.device", { device: trial.devices[phase] ?? phase });
  return phase in WORDS.trial.phases ? t(`trial.phases.${phase}`) : phase;
}

function moment(at) {
  const text = new Date(at).toLocaleString(LANGUAGE, { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
  return element("time", { dateTime: at }, `${text} UTC`);
}

function signOf(name, { protocol }) { // what stands before a value that is no plain measurement, and its meaning
  if (protocol.source === "predicted") return ["~", t("signs.predicted")];
  if (name === "accuracy" && protocol.of) return ["†", t("signs.estimated")];
  return protocol.noisy ? ["!", t("signs.noisy_because", { reason: protocol.noisy })] : null;
}

// --- numbers by phase ---
function table(head, rows, className = "") { // cells are nodes or texts; the first of a row is its header
  return element("table", { className },
    element("thead", {}, element("tr", {}, ...head.map(({ text, title = "", className: kind = "" }) =>
      element("th", { scope: "col", title, className: kind }, text)))),
    element("tbody", {}, ...rows.map(([first, ...cells]) => element("tr", {}, element("th", { scope: "row", title: first.title ?? "" }, first.text ?? first),
      ...cells.map((cell, column) => {
        const td = element("td", { className: head[column + 1].className ?? "" }, cell ?? "–");
        td.dataset.label = head[column + 1].text;
        return td;
      })))));
}

function measuredCell(name, one) {
  const [show, sign] = [FORMATS[name], signOf(name, one)];
  const n = IN_IMAGES.includes(name) ? one.protocol.of ? t("trial.images_of", { count: one.n, of: one.protocol.of }) : t("trial.images", { count: one.n })
    : IN_ROUNDS.includes(name) && one.protocol.source !== "predicted" ? t("trial.rounds", { count: one.n }) : null;
  const range = one.low < one.high && (show === percent ? interval(one) : `${show(one.low)} – ${show(one.high)}`);
  return element("span", { className: "cell" },
    element("span", { className: "value" }, sign && element("span", { className: sign[0] === "!" ? "mark noisy" : "mark", title: sign[1] }, sign[0]), show(one.value)),
    (range || n) && element("small", {}, [range, n].filter(Boolean).join(", ")));
}

function drawMeasured() {
  const { phases } = trial;
  const rows = trial.objectives.filter(name => phases.some(phase => name in trial.measurements[phase]));
  const empty = notYet() ?? t("trial.measured.nothing");
  const head = [{ text: t("trial.measured.objective") }, ...phases.map(phase => ({ text: phaseName(phase), className: "number" }))];
  byId("measured").replaceChildren(rows.length ? table(head, rows.map(name => [
    { text: t(`trial.objectives.${name}.name`), title: t(`trial.objectives.${name}.meaning`) },
    ...phases.map(phase => trial.measurements[phase][name] && measuredCell(name, trial.measurements[phase][name])),
  ]), "measured") : element("p", { className: "hint" }, empty));
  const signs = new Map(phases.flatMap(phase => Object.entries(trial.measurements[phase])).map(([name, one]) => signOf(name, one)).filter(Boolean));
  byId("marks").hidden = !signs.size;
  byId("marks").textContent = [...signs].map(([sign, meaning]) => `${sign} ${meaning}`).join("; ");
}

// --- tokens and blocks ---
function actText({ reduction, rule, removed, strength }) {
  const why = element("small", {}, t(`reductions.${reduction}.rules.${rule}`));
  if (strength === 0) return element("span", { className: "line" }, why);
  return element("span", { className: "line" }, t(`reductions.${reduction}.act`, { count: removed, share: percent(strength) }), " ", why);
}

function drawBlocks() {
  byId("summary").textContent = trial.summary;
  byId("bars").replaceChildren(...[bars(trial, trial.study.tokens), restingHint(trial)].filter(Boolean));
  const number = { className: "number" };
  const head = [{ text: t("trial.blocks.block") }, { ...number, text: t("trial.blocks.entering") }, { text: t("trial.blocks.steps") },
    { ...number, text: t("trial.blocks.leaving") }, { ...number, text: t("trial.blocks.macs"), title: t("trial.blocks.macs_meaning") }];
  byId("blocks").replaceChildren(table(head, trial.blocks.map(({ entering, resting, queries, acts, leaving, macs_share: share }, at) => {
    const does = acts.map(actText);
    if (queries < entering - resting) does.push(element("span", { className: "line" }, t("trial.blocks.tail", { count: queries })));
    return [visitLabel(trial.visits, at), `${entering}`, does.length ? element("span", {}, ...does) : null, `${leaving}`, percent(share)];
  }), "blocks"));
  byId("share").textContent = t("trial.blocks.share", { share: percent(trial.macs_share) });
}

// --- latency by round ---
function drawSamples() {
  const phases = trial.phases.filter(phase => phase in trial.samples).map(phase => [phase, trial.samples[phase]]);
  const kept = phases.filter(([, { ratios }]) => ratios?.length);
  byId("samples").replaceChildren(...(phases.length ? phases.map(([phase, one]) => element("p", { className: "hint" }, element("b", {}, phaseName(phase)), " ", samplesText(one)))
    : [element("p", {}, notYet() ?? t("trial.samples.none"))]));
  byId("samples-chart").hidden = !kept.length;
  return kept.length ? Plotly.react(byId("samples-chart"), samplesTraces(kept), samplesLayout(kept), { responsive: true, displayModeBar: false, showTips: false }) : null;
}

function samplesText({ ratios, p50, p95, rounds, p95_ms: tail, backbone_ms: backbone, backbone_p95_ms: backboneTail }) {
  return [
    t("trial.samples.median", { p50: percent(p50), count: rounds }),
    p95 !== null && t("trial.samples.tail", { p95: percent(p95) }),
    tail !== undefined && t("trial.samples.batch", { p95: milliseconds(tail), backbone: milliseconds(backbone), tail: milliseconds(backboneTail) }),
    !ratios && t("trial.samples.not_kept"),
  ].filter(Boolean).join(" ");
}

function samplesTraces(kept) { // a row for each phase, from the top; points are spread in it so that equal ones are told apart
  return kept.map(([phase, { ratios }], row) => ({
    type: "scatter", mode: "markers", name: phaseName(phase), x: ratios.map(ratio => 100 * ratio),
    y: ratios.map((_, at) => -row + 0.44 * ((0.618034 * at) % 1 - 0.5)), hovertemplate: "%{x:.1f}%<extra></extra>",
    marker: { symbol: "circle-open", size: 9, color: colour("front"), opacity: 1, line: { width: 1.6, color: colour("front") } },
  }));
}

function samplesLayout(kept) {
  const font = { family: colour("font"), size: 13, color: colour("soft") };
  const line = (name, row, x, dash) => ({ type: "line", name, x0: 100 * x, x1: 100 * x, y0: -row - 0.36, y1: -row + 0.36, line: { color: colour("ink"), width: 2, dash } });
  const { value, objective } = trial.study.limit;
  const budget = objective === "latency_ratio" ? [{ type: "line", name: "budget", x0: 100 * value, x1: 100 * value, y0: 0, y1: 1, yref: "paper",
    line: { color: colour("infeasible"), width: 1.5, dash: "dash" },
    label: { text: t("trial.samples.budget", { budget: trial.study.budget }), textposition: "end", textangle: 0, xanchor: "right", yanchor: "bottom", padding: 2, font: { color: colour("infeasible"), size: 12 } } }] : [];
  return {
    showlegend: false, hovermode: "closest", dragmode: false, margin: { l: 8, r: 16, t: 26, b: 44 }, height: 96 + 64 * kept.length,
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { ...font, color: colour("ink") } },
    xaxis: { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, fixedrange: true, ticksuffix: "%", nticks: 7, tickfont: { size: 12 },
      title: { text: t("trial.samples.axis"), font, standoff: 8 } },
    yaxis: { showgrid: false, zeroline: false, fixedrange: true, range: [0.5 - kept.length, 0.5], automargin: true, tickfont: { size: 12 },
      tickvals: kept.map((_, row) => -row), ticktext: kept.map(([phase]) => escaped(phaseName(phase))) },
    shapes: [...kept.flatMap(([, { p50, p95 }], row) => [line("p50", row, p50, "solid"), line("p95", row, p95, "dot")]), ...budget],
  };
}

// --- classes ---
function lossBar(lost, most) {
  const bar = element("span", { className: lost < 0 ? "loss gained" : "loss", ariaHidden: "true" }, element("i"));
  bar.style.setProperty("--share", most > 0 ? Math.abs(lost) / most : 0);
  return bar;
}

function drawClasses() {
  const phase = ["confirmation", "search"].find(one => trial.classes[one]?.rows.length);
  byId("classes").hidden = !phase;
  if (!phase) {
    byId("classes-text").textContent = notYet() ?? t("trial.classes.none");
    return;
  }
  const { whole, rows } = trial.classes[phase];
  byId("classes-text").textContent = `${t("trial.classes.hint", { phase: phaseName(phase) })} ${whole ? "" : t("trial.classes.worst")}`;
  const most = Math.max(...rows.map(({ lost }) => Math.abs(lost)));
  const head = [{ text: t("trial.classes.class") }, { text: t("trial.classes.lost") }, { text: t("trial.classes.images"), className: "number" }];
  byId("classes").replaceChildren(table(head, rows.map(({ class: label, lost, images }) =>
    [`${label}`, element("span", { className: "losing" }, lossBar(lost, most), element("span", { className: "number" }, percent(lost))), `${images}`]), "classes"));
}

// --- log, schedule, environment ---
function logText({ what, count, rungs, total, state, reason, device }) {
  if (what === "again") return t("trial.log.again", { count });
  if (what === "seen") return t("trial.log.seen", { rungs: rungs.join(", "), total });
  if (what === "ended") return reason ? t("trial.log.ended_with", { state: t(`states.${state}`), reason }) : t("trial.log.ended", { state: t(`states.${state}`) });
  return { started: t("trial.log.started"), confirmation: t("trial.log.confirmed"), late: t("trial.log.late"), device: t("trial.log.device", { device }) }[what];
}

function drawLog() {
  byId("log").replaceChildren(...trial.log.map(one => element("li", {}, one.at ? moment(one.at) : element("small", {}, t("trial.log.unknown")), element("span", {}, logText(one)))));
}

function plain(value) {
  if (value === null) return "–";
  if (typeof value === "boolean") return value ? t("trial.yes") : t("trial.no");
  return typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value);
}

function drawEnvironment() {
  const phases = trial.phases.filter(phase => phase in trial.environment);
  const names = [...new Set(phases.flatMap(phase => Object.keys(trial.environment[phase])))];
  const key = name => name.replaceAll(".", "_");
  const named = name => key(name) in WORDS.trial.protocol ? t(`trial.protocol.${key(name)}`) : name;
  const head = [{ text: t("trial.environment.what") }, ...phases.map(phase => ({ text: phaseName(phase) }))];
  const rows = names.map(name => [named(name), ...phases.map(phase => name in trial.environment[phase] ? plain(trial.environment[phase][name]) : null)]);
  byId("environment").replaceChildren(phases.length ? table(head, rows, "environment") : element("p", { className: "hint" }, t("trial.environment.none")));
}

// --- header ---
function drawHeader() {
  const { kind, state, origin, study, seconds } = trial;
  Object.assign(byId("state"), { className: `state ${state}`, textContent: t(`states.${state}`) });
  byId("kind").hidden = state !== "complete";
  byId("kind").style.setProperty("--kind", `var(--${kind})`);
  byId("kind").title = kindMeaning(kind);
  if (state === "complete") byId("kind").textContent = trial.best ? t("trial.best", { budget: study.budget })
    : trial.most_accurate ? t("trial.finest", { budget: study.budget }) : kindLabel(kind);
  byId("facts").replaceChildren(...[
    originText(origin),
    trial.judged.latency_ratio && (trial.within_budget ? t("trial.within", { budget: study.budget }) : t("trial.over", { budget: study.budget })),
    trial.expected && t("trial.expected", { accuracy: percent(trial.expected.value), interval: interval(trial.expected) }),
    seconds !== null && t("trial.took", { seconds: seconds < 10 ? seconds.toFixed(1) : Math.round(seconds) }),
  ].filter(Boolean).map(text => element("span", {}, text)));
  byId("reason").hidden = !trial.reason;
  byId("reason").textContent = trial.reason ?? "";
  const keeping = address => address && askingFor(address, wanted);
  const way = (href, text, properties = {}) => href && element("a", { href, className: "way", ...properties }, text);
  byId("ways").replaceChildren(...[
    way(keeping(trial.previous), `← ${t("trial.previous")}`, { rel: "prev" }), way(keeping(trial.next), `${t("trial.next")} →`, { rel: "next" }),
    way(`${study.url}#trial-${trial.number}`, t("trial.in_study")), way(trial.compare, t("trial.compare")),
    way(keeping(trial.export), wanted ? t("trial.export_for", { budget: wantedText() }) : t("trial.export"), { className: "button", download: "" }),
  ].filter(Boolean));
}

// --- pictures ---
const boxes = [...document.querySelectorAll(".drawn")];
const choice = byId("choice");
let asked = 0; // how often: an answer to an earlier question comes too late

async function drawPictures(indices = null) {
  const question = asked += 1;
  const waiting = boxes.map(box => box.previousElementSibling);
  for (const one of waiting) Object.assign(one, { hidden: false, textContent: t("trial.pictures.waiting") });
  try {
    const response = await fetch(byId("trial").dataset.images + (indices === null ? "" : `?indices=${encodeURIComponent(indices)}`));
    const shown = await response.json();
    if (question !== asked) return;
    if (!shown.images?.length) throw new Error(shown.reason ?? shown.error);
    await Promise.all(boxes.map(box => PICTURES[box.dataset.picture](box, shown)));
    for (const one of waiting) one.hidden = true;
    choice.elements.indices.value = shown.images.map(({ index }) => index).join(",");
    Object.assign(choice.dataset, { available: shown.available });
  } catch (error) {
    for (const one of waiting) one.textContent = t("trial.pictures.none", { reason: error.message });
  }
  choice.hidden = false;
}

function otherImages() { // as many as there are, from where these end
  const shown = choice.elements.indices.value.split(",").map(Number).filter(Number.isInteger);
  const available = Number(choice.dataset.available ?? 1);
  drawPictures(shown.map((_, at) => (Math.max(...shown) + 1 + at) % available).join(","));
}

if (choice) {
  choice.addEventListener("submit", event => {
    event.preventDefault();
    drawPictures(choice.elements.indices.value);
  });
  byId("others").addEventListener("click", otherImages);
  // Computing them takes a model: nobody who does not look at them waits for it.
  const seen = new IntersectionObserver(entries => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    seen.disconnect();
    drawPictures();
  });
  for (const box of boxes) seen.observe(box.parentElement);
}

// --- life ---
async function draw() {
  if (!trial) return;
  for (const part of [drawHeader, drawMeasured, drawBlocks, drawClasses, drawLog, drawEnvironment]) part();
  byId("schedule").textContent = trial.yaml;
  await drawSamples();
}

async function refresh() {
  try {
    const response = await fetch(twin);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const text = await response.text();
    if (text !== received) {
      [received, trial] = [text, JSON.parse(text)];
      await draw();
    }
    byId("notice").hidden = true;
  } catch (error) {
    console.warn(error);
    byId("notice").hidden = false;
  }
  if (UNFINISHED.includes(trial?.state) || !byId("notice").hidden) setTimeout(refresh, AGAIN_MS);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
refresh();

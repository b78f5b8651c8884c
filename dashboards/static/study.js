// The study page: chart, panel and table, all drawn from the page's JSON twin and drawn again while the study runs.
"use strict";

const POLL_MS = 2000;
const chart = byId("chart");
const twin = byId("study").dataset.twin;
let study = null; // the JSON twin as it was last read
let received = ""; // its text, to see whether anything is new
let chosen = Number(location.hash.match(/^#trial-(\d+)$/)?.[1] ?? NaN); // NaN: whatever is best
let axis = "latency_ratio";
let pressed = false; // plotly loses a click when the data change under it

const AXES = {
  latency_ratio: { title: () => "Latency, % of the backbone", scale: () => 100 },
  latency_ms: { title: () => `Latency, ms per batch of ${study.settings.batch_size}`, scale: () => 1 },
  macs: { title: () => `MACs per image, ${large() ? "G" : "M"}`, scale: () => large() ? 1e-9 : 1e-6 },
};
const KINDS = { // those with a symbol are drawn, the last one on top
  infeasible: { label: "over budget", glyph: "❘", symbol: "line-ns-open", size: 13,
    meaning: "over budget: too slow, so its accuracy was not measured" },
  dominated: { label: "dominated", glyph: "○", symbol: "circle-open", size: 8,
    meaning: "dominated: another trial is at least as good in everything" },
  stopped: { label: "stopped", glyph: "▽", symbol: "triangle-down-open", size: 9, opacity: 0.55,
    meaning: "stopped: ended early, once a cheaper trial was better on the same images; its accuracy is an estimate" },
  backbone: { label: "backbone", glyph: "★", symbol: "star", size: 15, meaning: "backbone: the untouched model" },
  front: { label: "front", glyph: "●", symbol: "circle", size: 10,
    meaning: "front: no other trial is at least as accurate, as fast and as small" },
  failed: { label: "failed", glyph: "✕", meaning: "failed: ended with an error, and is not drawn" },
  running: { label: "running", glyph: "…", meaning: "running: being evaluated now" },
};
const LEGEND = ["front", "dominated", "stopped", "infeasible", "backbone", "failed", "running"];
const ORIGINS = {
  backbone: "the untouched model", sampler: "proposed by the sampler", plan: "planned from what each block can spare",
  constant: "tried first: equally many tokens fewer in each block", decreasing: "tried first: most tokens merged early",
  delayed: "tried first: merging that starts late", published: "tried first: rates that were published",
  learned: "tried first: merging by a learned embedding", start: "tried first, as people do by hand",
};

// --- words and numbers ---
const heldOut = trial => trial.measurements.confirmation?.accuracy;
const numbered = number => study.trials.find(trial => trial.number === number);
const TIED = "No different from the best one beyond the noise, in accuracy and in latency";
const bestTrial = () => numbered(study.best?.trial);
const backbone = () => study.trials.find(trial => trial.kind === "backbone");
const large = () => backbone()?.judged.macs.value >= 1e9;
const signed = trial => trial.predicted ? "~" : trial.noisy ? "!" : ""; // before a latency that is no plain measurement
const chosenTrial = () => numbered(chosen) ?? bestTrial();

const ESTIMATE = "estimated from the images seen before the trial was stopped";
const accuracyText = trial => `${trial.estimated_of ? "†" : ""}${percent(trial.judged.accuracy.value)}`;
const imagesText = ({ estimated_of: all, judged: { accuracy } }) => all ? `${accuracy.n} of ${all}` : `${accuracy.n}`;

const signMeaning = ({ predicted, noisy }) => predicted ? "predicted from the latency profile, not measured" : noisy && `noisy: ${noisy}`;

function accuracyName() {
  const against = backbone()?.measurements.search?.accuracy.protocol.against;
  return against === "backbone" ? "Agreement with the backbone" : "Accuracy";
}

function latencyText(trial, text) { // with its sign, which explains itself
  if (!signed(trial)) return text;
  const sign = element("span", { className: trial.predicted ? "mark" : "mark noisy", title: signMeaning(trial) }, signed(trial));
  return element("span", {}, sign, text);
}

// --- the chart ---
function hoverText(trial) {
  const { number, kind, origin, reason, judged: { accuracy, latency_ratio: ratio, latency_ms: ms, macs: cost } } = trial;
  return [
    `Trial ${number}${kind === "backbone" ? "" : escaped(`, ${origin}`)}`,
    accuracy && `accuracy ${accuracyText(trial)} (${interval(accuracy)}), ${imagesText(trial)} images`,
    ratio && `latency ${signed(trial)}${percent(ratio.value)} (${interval(ratio)}) of the backbone`,
    signed(trial) && escaped(`${signed(trial)} ${signMeaning(trial)}`),
    ms && cost && `${signed(trial)}${milliseconds(ms.value)} per batch, ${macs(cost.value)} MACs per image`,
    reason && escaped(reason),
    KINDS[kind].meaning,
  ].filter(Boolean).join("<br>"); // no other markup: plotly styles it inline, which the content security policy blocks
}

function errorBars(trials, name, scale, color) {
  const arms = trials.map(trial => trial.judged[name]);
  return { type: "data", symmetric: false, thickness: 1.2, width: 0, color,
    array: arms.map(({ value, high }) => scale * (high - value)), arrayminus: arms.map(({ value, low }) => scale * (value - low)) };
}

function place(trial) { // an infeasible trial has no accuracy: it is a tick in a strip of its own
  return { x: AXES[axis].scale() * trial.judged[axis].value, y: 100 * (trial.judged.accuracy?.value ?? 0) };
}

function markers(name, trials, marker, more) {
  const places = trials.map(place);
  return { name, type: "scatter", mode: "markers", x: places.map(({ x }) => x), y: places.map(({ y }) => y), marker, ...more };
}

function trace(kind) {
  const { symbol, size, opacity = 1 } = KINDS[kind];
  const trials = study.trials.filter(trial => trial.kind === kind && trial.judged[axis]);
  const color = colour(kind);
  const intervals = ["front", "backbone"].includes(kind) && {
    error_x: errorBars(trials, axis, AXES[axis].scale(), `${color}77`), error_y: errorBars(trials, "accuracy", 100, `${color}77`) };
  return markers(kind, trials, { symbol, size, color, opacity, line: { width: symbol.endsWith("open") ? 1.6 : 0, color } }, {
    yaxis: kind === "infeasible" ? "y2" : "y", customdata: trials.map(trial => trial.number), text: trials.map(hoverText),
    hovertemplate: "%{text}<extra></extra>", ...intervals });
}

function ring() {
  const trial = chosenTrial();
  return markers("chosen", trial?.judged[axis] ? [trial] : [], { symbol: "circle-open", size: 21, color: colour("ink"), line: { width: 1.8 } },
    { hoverinfo: "skip", yaxis: trial?.kind === "infeasible" ? "y2" : "y" });
}

function staircase() { // the accuracy to be had for at most x
  const steps = study.trials.filter(trial => trial.front).map(place).sort((one, other) => one.x - other.x || other.y - one.y)
    .filter(({ y }, index, all) => all.slice(0, index).every(before => before.y < y));
  return { name: "staircase", type: "scatter", mode: "lines", hoverinfo: "skip", x: steps.map(({ x }) => x), y: steps.map(({ y }) => y),
    line: { shape: "hv", width: 5, color: `${colour("front")}26` } };
}

function budgetLine() {
  const { value, objective } = study.limit;
  const reference = backbone()?.judged.latency_ms.value;
  const exact = objective === axis;
  if (!exact && (!reference || axis === "macs")) return [];
  const x = AXES[axis].scale() * (exact ? value : axis === "latency_ms" ? value * reference : value / reference);
  const color = colour("infeasible");
  return [{ type: "line", name: "budget", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color, width: 1.5, dash: exact ? "dash" : "dot" },
    label: { text: `${exact ? "" : "≈ "}budget ${study.budget}`, textposition: "end", textangle: 0, xanchor: "left", yanchor: "top", padding: 6,
      font: { color, size: 12 } } }];
}

function drawChart() {
  const strip = study.trials.some(trial => trial.kind === "infeasible");
  const lines = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, automargin: true, tickfont: { size: 12 } };
  const font = { family: colour("font"), size: 13, color: colour("soft") };
  const layout = {
    uirevision: axis, showlegend: false, hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    margin: { l: 64, r: 16, t: 8, b: 52 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent", font,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), align: "left", font: { ...font, color: colour("ink") } },
    xaxis: { ...lines, title: { text: AXES[axis].title(), font, standoff: 12 }, anchor: strip ? "y2" : "y", ticksuffix: axis === "latency_ratio" ? "%" : "" },
    yaxis: { ...lines, title: { text: accuracyName(), font, standoff: 10 }, ticksuffix: "%", domain: [strip ? 0.1 : 0, 1] },
    yaxis2: { ...lines, domain: [0, 0.07], range: [-1, 1], fixedrange: true, visible: strip, showgrid: false, tickvals: [0], ticktext: ["over<br>budget"] },
    shapes: budgetLine(),
  };
  const drawn = Object.keys(KINDS).filter(kind => KINDS[kind].symbol);
  return Plotly.react(chart, [staircase(), ring(), ...drawn.map(trace)], layout, { responsive: true, displayModeBar: false, showTips: false });
}

// --- the panel, the tiles and the tables ---
function bars({ tokens }, labels = true) {
  const every = Math.ceil(tokens.length / 12);
  const box = element("div", { className: "bars", role: "img", ariaLabel: `Tokens after each block: ${tokens.join(", ")}` });
  tokens.forEach((count, block) => {
    const fill = element("i");
    fill.style.setProperty("--share", count / study.backbone.tokens);
    const shown = labels && block % every === 0;
    box.append(element("div", { title: `block ${block + 1}: ${count} tokens` }, shown ? `${count}` : null, fill,
      labels ? element("em", {}, shown ? `${block + 1}` : "\u00a0") : null));
  });
  return box;
}

function fact(name, value, note) {
  return element("div", {}, element("dt", {}, name), element("dd", { className: "value" }, value), note ? element("dd", { className: "note" }, note) : null);
}

function measuredHow(trial, { rounds }) {
  return signed(trial) ? `${signed(trial)} ${signMeaning(trial)}` : rounds && `${rounds} rounds`;
}

function drawPanel() {
  const trial = chosenTrial();
  const panel = byId("panel");
  panel.dataset.trial = trial?.number ?? "";
  if (!trial) {
    const text = study.nearest ? `The fastest trial so far, number ${study.nearest.trial}, takes ${percent(study.nearest.latency_ratio)} of the backbone's time.`
      : "No trial has been measured yet.";
    panel.replaceChildren(element("h2", {}, `Nothing holds ${study.budget} yet`), element("p", { className: "origin" }, text));
    return;
  }
  const { accuracy, latency_ratio: ratio, latency_ms: ms, macs: cost, throughput, memory } = trial.judged;
  const { kind, measurements } = trial;
  const held = heldOut(trial);
  const dense = kind !== "backbone" && backbone()?.judged.macs.value;
  const protocol = (measurements.confirmation ?? measurements.search)?.latency_ms?.protocol;
  const tag = element("span", { className: "tag", title: KINDS[kind].meaning }, trial === bestTrial() ? `best for ${study.budget}` : KINDS[kind].label);
  panel.style.setProperty("--kind", `var(--${kind})`);
  panel.replaceChildren(...[
    element("div", {}, element("div", { className: "bar" }, element("h2", {}, `Trial ${trial.number}`), tag),
      element("p", { className: "origin" }, trial.reason ?? ORIGINS[trial.origin] ?? trial.origin)),
    element("dl", { className: "values" },
      accuracy && fact(accuracyName(), accuracyText(trial), `95% interval ${interval(accuracy)}, ${imagesText(trial)} search images${trial.expected ? `; ${percent(trial.expected.value)} expected on images not seen` : ""}`),
      held && fact("On held-out images", percent(held.value), `95% interval ${interval(held)}, ${held.n} images no search saw`),
      ratio && fact("Latency", latencyText(trial, percent(ratio.value)), `95% interval ${interval(ratio)}, of the backbone's`),
      ms && fact(`Per batch of ${study.settings.batch_size}`, latencyText(trial, milliseconds(ms.value)),
        throughput && latencyText(trial, perSecond(throughput.value))),
      memory && fact("Peak memory", megabytes(memory.value)),
      cost && fact("MACs per image", macs(cost.value), dense && `${percent(cost.value / dense)} of the backbone's`)),
    element("div", {}, element("h3", {}, "Tokens after each block"), bars(trial),
      trial.kind !== "backbone" && element("p", { className: "hint" }, `${trial.summary[0].toUpperCase()}${trial.summary.slice(1)}.`),
      trial.schedule.tail === "prefix" && element("p", { className: "hint" },
        `Only ${study.backbone.prefix === 1 ? "the class token is" : "prefix tokens are"} read after the last block, and computed in it.`)),
    trial.estimated_of && element("p", { className: "hint" }, `† ${ESTIMATE}.`),
    trial.worst && element("p", { className: "hint" }, trial.worst),
    protocol && element("p", { className: "hint" }, [protocol.device, protocol.dtype, measuredHow(trial, protocol)].filter(Boolean).join(", ")),
    trial.export && element("a", { className: "button", href: trial.export, download: "" }, "Export schedule"),
  ].filter(Boolean));
}

function drawTiles() {
  const best = bestTrial();
  const untouched = backbone();
  const accuracy = trial => percent((best && heldOut(best) ? heldOut(trial) : trial.judged.accuracy)?.value ?? trial.judged.accuracy.value);
  const ratio = best?.judged.latency_ratio.value;
  byId("tiles").replaceChildren(
    fact(`${accuracyName()} within ${study.budget}`, best ? accuracy(best) : "–",
      untouched ? `backbone ${accuracy(untouched)}${best && heldOut(best) ? ", held-out images" : ""}` : "backbone not measured yet"),
    fact("Latency", best ? latencyText(best, percent(ratio)) : "–", best ? `of the backbone, ${(1 / ratio).toFixed(2)}× as fast` : "no schedule holds the budget"),
    fact("MACs per image", best ? macs(best.judged.macs.value) : "–", untouched ? `backbone ${macs(untouched.judged.macs.value)}` : null),
    fact("Trials", `${study.finished}`, `of ${study.planned}`),
  );
}

function drawTable() {
  const body = byId("front");
  const focused = document.activeElement.dataset.trial;
  const best = bestTrial();
  const measure = (one, show) => element("td", { className: "number" }, one ? show(one.value) : "–", one && element("span", { className: "range" }, interval(one)));
  const plain = value => element("td", { className: "number wide" }, value);
  const rows = study.trials.filter(trial => trial.front || trial === best);
  rows.sort((one, other) => one.judged.latency_ratio.value - other.judged.latency_ratio.value);
  body.replaceChildren(...rows.map(trial => {
    const current = trial === chosenTrial();
    const button = element("button", { type: "button", ariaPressed: `${current}` }, `Trial ${trial.number}`);
    button.dataset.trial = trial.number;
    const tag = trial === best ? `best for ${study.budget}` : trial.kind === "backbone" ? "backbone"
      : study.tied.includes(trial.number) ? "≈ best" : null;
    return element("tr", { className: current ? "chosen" : "", onclick: () => choose(trial.number) },
      element("th", { scope: "row" }, button, tag && element("span", { className: "tag", title: tag.startsWith("≈") ? TIED : "" }, tag)),
      measure(trial.judged.accuracy, percent), measure(heldOut(trial), percent), measure(trial.judged.latency_ratio, share => latencyText(trial, percent(share))),
      plain(latencyText(trial, milliseconds(trial.judged.latency_ms.value))), plain(macs(trial.judged.macs.value)),
      element("td", { className: "wide", title: ORIGINS[trial.origin] ?? "" }, trial.origin),
      element("td", { className: "wide" }, bars(trial, false)));
  }));
  const signs = new Map(rows.filter(signed).map(trial => [signed(trial), trial.predicted ? signMeaning(trial) : "noisy: something disturbed the measurement"]));
  byId("marks").hidden = !signs.size;
  byId("marks").textContent = [...signs].map(([sign, meaning]) => `${sign} ${meaning}`).join("; ");
  const ended = study.ended && { text: `The search ended: ${study.ended}.` };
  const standing = [ended, study.optimism, study.outlook].filter(Boolean).map(({ text }) => text);
  byId("standing").hidden = !standing.length;
  byId("standing").replaceChildren(...standing.map(text => element("p", {}, text)));
  if (focused) body.querySelector(`[data-trial="${focused}"]`)?.focus();
}

function drawCounts() {
  byId("legend").replaceChildren(...LEGEND.flatMap(kind => {
    const count = study.trials.filter(trial => trial.kind === kind).length;
    const swatch = element("span", { ariaHidden: "true" }, KINDS[kind].glyph);
    swatch.style.setProperty("--kind", `var(--${kind})`);
    return count ? [element("li", { title: KINDS[kind].meaning }, swatch, KINDS[kind].label, element("b", {}, `${count}`))] : [];
  }));
  const failures = study.trials.filter(trial => trial.kind === "failed");
  byId("failures").hidden = !failures.length;
  byId("failures").querySelector("summary").textContent = failures.length === 1 ? "1 trial failed" : `${failures.length} trials failed`;
  byId("failures").querySelector("ul").replaceChildren(...failures.map(trial => element("li", {}, `Trial ${trial.number}: ${trial.reason ?? "no reason was kept"}`)));
  Object.assign(byId("state"), { className: `state ${study.state}`, textContent: t(`states.${study.state}`) });
}

// --- life ---
async function draw() {
  if (!study) return;
  for (const part of [drawCounts, drawTiles, drawPanel, drawTable]) part();
  const first = !chart.on;
  await Promise.all([drawChart(), drawPhase(), drawProfile(), drawImportance(), drawSensitivity()]);
  if (first) chart.on("plotly_click", ({ points }) => choose(points[0].customdata));
}

function choose(number) {
  chosen = number;
  history.replaceState(null, "", `#trial-${number}`);
  draw();
}

async function refresh() {
  try {
    const response = await fetch(twin);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const text = await response.text();
    if (text !== received && !pressed) {
      [received, study] = [text, JSON.parse(text)];
      await draw();
    }
    byId("notice").hidden = true;
  } catch (error) {
    console.warn(error);
    byId("notice").hidden = false;
  }
  if (study?.state !== "running" && byId("notice").hidden && !pressed) return;
  setTimeout(refresh, POLL_MS);
}

chart.addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressed = false; }, true);
for (const input of document.getElementsByName("axis")) input.addEventListener("change", () => { axis = input.value; draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
refresh();

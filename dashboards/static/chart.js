// Accuracy against cost: every trial, the front as a staircase, the budget as a line that the slider below it moves.
"use strict";

const chart = byId("chart");
let axis = "latency_ratio";

const SIDES = ["bottom left", "bottom right", "top right", "top left"]; // the first for the leftmost
const AXES = {
  latency_ratio: { title: () => t("study.axis.latency_ratio"), scale: () => 100, unit: "%", show: value => percent(value) },
  latency_ms: { title: () => timeTitle(study.settings.batch_size, study.limit.backbone_ms), scale: () => 1, unit: "", show: milliseconds },
  macs: { title: () => t("study.axis.macs", { unit: large() ? "G" : "M" }), scale: () => large() ? 1e-9 : 1e-6, unit: "", show: value => `${macs(value)} MACs` },
  memory: { title: () => t("study.axis.memory"), scale: () => 1, unit: "", show: megabytes },
};
const timeTitle = (count, ms) => ms ? t("study.axis.latency_ms", { count, ms: milliseconds(ms) }) : t("study.axis.latency_ms_alone", { count });

function onAxis(trial) { // milliseconds by the backbone's time, as budgets are: what drifts with the machine cancels in the share
  const { latency_ratio: ratio, [axis]: one } = trial?.judged ?? {};
  const { backbone_ms: ms } = study.limit;
  if (axis !== "latency_ms" || !ratio || !ms) return one;
  return { value: ms * ratio.value, low: ms * ratio.low, high: ms * ratio.high };
}

const scaled = value => AXES[axis].scale() * value;

function hoverText(trial) {
  const { number, kind, origin, reason, judged: { accuracy, latency_ratio: ratio, latency_ms: ms, macs: cost } } = trial;
  return [
    `${t("trials.trial", { number })}${kind === "backbone" ? "" : escaped(`, ${STARTS[origin] ?? origin}`)}`,
    trial.expected && t("study.expected", { accuracy: percent(trial.expected.value) }),
    accuracy && t("study.hover.accuracy", { accuracy: accuracyText(trial), interval: interval(accuracy), images: imagesText(trial) }),
    ratio && t("study.hover.latency", { latency: `${sign(trial)}${percent(ratio.value)}`, interval: interval(ratio) }),
    sign(trial) && escaped(`${sign(trial)} ${signMeaning(trial)}`),
    ms && cost && t("study.hover.cost", { ms: `${sign(trial)}${milliseconds(ms.value)}`, macs: macs(cost.value) }),
    reason && escaped(reason),
    number === study.knee && t("study.knee_meaning"),
    kindMeaning(kind),
  ].filter(Boolean).join("<br>"); // no other markup: plotly styles it inline, which the content security policy blocks
}

function errorBars(arms, scale, color) {
  return { type: "data", symmetric: false, thickness: 1.2, width: 0, color,
    array: arms.map(({ value, high }) => scale * (high - value)), arrayminus: arms.map(({ value, low }) => scale * (value - low)) };
}

function place(trial) { // an infeasible trial has no accuracy: it is a tick in a strip of its own
  return { x: scaled(onAxis(trial).value), y: 100 * (trial.judged.accuracy?.value ?? 0) };
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
    error_x: errorBars(trials.map(onAxis), AXES[axis].scale(), `${color}77`), error_y: errorBars(trials.map(({ judged }) => judged.accuracy), 100, `${color}77`) };
  return markers(kind, trials, { symbol, size, color, opacity, line: { width: symbol.endsWith("open") ? 1.6 : 0, color } }, {
    yaxis: kind === "infeasible" ? "y2" : "y", customdata: trials.map(trial => trial.number), text: trials.map(hoverText),
    hovertemplate: "%{text}<extra></extra>", ...intervals });
}

function named() { // of each heuristic that was tried first, its most accurate trial by name
  const best = new Map();
  for (const trial of study.trials) {
    const { kind, origin, judged } = trial;
    if (!(origin in STARTS) || !judged.accuracy || !judged[axis] || kind === "stopped") continue;
    if (!best.has(origin) || judged.accuracy.value > best.get(origin).judged.accuracy.value) best.set(origin, trial);
  }
  return [...best.values()].sort((one, other) => one.judged[axis].value - other.judged[axis].value);
}

function starts() {
  const trials = named();
  const color = colour("ink");
  return markers("starts", trials, { symbol: "diamond-open", size: 17, color, line: { width: 1.2 } }, {
    mode: "markers+text", hoverinfo: "skip", text: trials.map(({ origin }) => STARTS[origin]), textposition: sides(trials), textfont: { size: 11, color } });
}

function sides(trials) { // of its point, on which each name is written, from left to right: names close to each other on different ones
  const drawn = study.trials.filter(trial => trial.judged[axis]).map(place);
  const spans = ["x", "y"].map(name => Math.max(...drawn.map(one => one[name])) - Math.min(...drawn.map(one => one[name])));
  const near = (one, other) => Math.abs(one.x - other.x) < 0.12 * spans[0] && Math.abs(one.y - other.y) < 0.12 * spans[1];
  const written = [];
  for (const at of trials.map(place)) {
    const taken = written.filter(before => near(before, at)).map(({ side }) => side);
    written.push({ ...at, side: SIDES.find(side => !taken.includes(side)) ?? SIDES[0] });
  }
  return written.map(({ side }) => side);
}

function ring() {
  const trial = chosenTrial();
  return markers("chosen", trial?.judged[axis] ? [trial] : [], { symbol: "circle-open", size: 21, color: colour("ink"), line: { width: 1.8 } },
    { hoverinfo: "skip", yaxis: trial?.kind === "infeasible" ? "y2" : "y" });
}

function staircase() { // the accuracy to be had for at most x
  const steps = study.trials.filter(trial => trial.front && trial.judged[axis]).map(place).sort((one, other) => one.x - other.x || other.y - one.y)
    .filter(({ y }, index, all) => all.slice(0, index).every(before => before.y < y));
  return { name: "staircase", type: "scatter", mode: "lines", hoverinfo: "skip", x: steps.map(({ x }) => x), y: steps.map(({ y }) => y),
    line: { shape: "hv", width: 5, color: `${colour("front")}26` } };
}

function kneeNote() {
  const trial = numbered(study.knee);
  if (!trial?.judged[axis]) return [];
  const { x, y } = place(trial);
  const color = colour("front");
  return [{ name: "knee", text: t("study.knee"), x, y, ax: -34, ay: -30, arrowhead: 0, arrowwidth: 1.2, arrowcolor: color, standoff: 7, font: { size: 12, color } }];
}

function budgetLine() { // first of the shapes: the slider moves it
  const x = scaled(wanted());
  const color = colour("infeasible");
  return { type: "line", name: "budget", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color, width: 1.5, dash: "dash" },
    label: { text: t("study.budget_line", { budget: budgetText() }), textposition: "end", textangle: 0, xanchor: "left", yanchor: "top", padding: 6,
      font: { color, size: 12 } } };
}

function drawChart() {
  const strip = study.trials.some(trial => trial.kind === "infeasible");
  const lines = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, automargin: true, tickfont: { size: 12 } };
  const font = { family: colour("font"), size: 13, color: colour("soft") };
  const layout = {
    uirevision: axis, showlegend: false, hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    margin: { l: 64, r: 16, t: 8, b: 52 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent", font,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), align: "left", font: { ...font, color: colour("ink") } },
    xaxis: { ...lines, title: { text: AXES[axis].title(), font, standoff: 12 }, anchor: strip ? "y2" : "y", ticksuffix: AXES[axis].unit },
    yaxis: { ...lines, title: { text: accuracyName(), font, standoff: 10 }, ticksuffix: "%", domain: [strip ? 0.1 : 0, 1] },
    yaxis2: { ...lines, domain: [0, 0.07], range: [-1, 1], fixedrange: true, visible: strip, showgrid: false, tickvals: [0],
      ticktext: [escaped(t("study.strip")).replace("\n", "<br>")] },
    shapes: [budgetLine()], annotations: kneeNote(),
  };
  const drawn = Object.keys(KINDS).filter(kind => KINDS[kind].symbol);
  return Plotly.react(chart, [staircase(), ring(), starts(), ...drawn.map(trace)], layout, { responsive: true, displayModeBar: false, showTips: false });
}

function moveBudget() { // the cloud stays as it is: one line and one ring move
  const { x, y, yaxis } = ring();
  const line = budgetLine();
  return Promise.all([
    Plotly.relayout(chart, { "shapes[0].x0": line.x0, "shapes[0].x1": line.x1, "shapes[0].label.text": line.label.text }),
    Plotly.restyle(chart, { x: [x], y: [y], yaxis: [yaxis] }, [1]),
  ]);
}

// Where merging may start: what the backbone's attention shows over its blocks, drawn from `merge_start` of the
// detector's JSON twin.
"use strict";

const PHASE_PANELS = [ // from top to bottom; `share` is of the height
  { name: "similarity", colour: "front", share: 0.28 },
  { name: "partner", colour: "stopped", share: 0.18 },
  { name: "sink", colour: "backbone", share: 0.18 },
  { name: "entropy", colour: "good", share: 0.18 },
  { name: "outlier", colour: "infeasible", share: 0.18 },
];
const PHASE_GAP = 0.052; // above each panel, where its title stands
const PHASE_TOP = 0.04; // above them all, where the start is named
const statistic = value => value >= 10 ? value.toFixed(1) : value.toFixed(3);

function startPanels() {
  const rest = 1 - PHASE_TOP - PHASE_GAP * PHASE_PANELS.length;
  let top = 1 - PHASE_TOP;
  return PHASE_PANELS.map((panel, index) => {
    const high = top - PHASE_GAP;
    top = high - panel.share * rest;
    return { ...panel, axis: index ? `y${index + 1}` : "y", domain: [Math.max(0, top), high] };
  });
}

function startTraces({ name, colour: kind, axis }, found) {
  const { values, low, high } = found.curves[name];
  const x = values.map((_, block) => block + 1);
  const color = colour(kind);
  const text = values.map((value, block) => [t("detector.block_number", { block: block + 1 }),
    `${t(`detector.statistics.${name}`)} ${statistic(value)} (${statistic(low[block])}–${statistic(high[block])})`,
    found.meanings[name].replace(", ", ",<br>")].join("<br>"));
  const axes = { xaxis: "x", yaxis: axis };
  return [
    { ...shaded(`${name} interval`, x, low, high, `${color}33`), ...axes },
    { ...axes, type: "scatter", x, name, mode: "lines+markers", y: values, text, hovertemplate: "%{text}<extra></extra>",
      line: { color, width: 2 }, marker: { color, size: values.map((_, block) => block === found.start ? 10 : 6), opacity: 1, line: { width: 0 } } },
  ];
}

function startShapes({ start, low, high, detected }, depth) {
  const line = { color: colour("ink"), width: 1.5, dash: detected ? "dash" : "dot" };
  const text = detected ? t("detector.start", { block: start + 1 }) : t("detector.thumb", { block: start + 1 });
  const label = { text, textangle: 0, textposition: "end", xanchor: start < depth / 2 ? "left" : "right", yanchor: "top", padding: 4,
    font: { color: colour("ink"), size: 12 } };
  const band = { type: "rect", name: "start interval", x0: low + 0.75, x1: high + 1.25, y0: 0, y1: 1, yref: "paper", layer: "below",
    fillcolor: `${colour("accent")}1f`, line: { width: 0 } };
  return [...(detected ? [band] : []), { type: "line", name: "start", x0: start + 1, x1: start + 1, y0: 0, y1: 1, yref: "paper", line, label }];
}

function drawMergeStart(found) {
  byId("merge-start-missing").hidden = Boolean(found);
  byId("merge-start").hidden = !found;
  if (!found) return null;
  byId("merge-start-text").textContent = found.text;
  const depth = found.curves.similarity.values.length;
  const panels = startPanels();
  const font = chartFont();
  const axes = Object.fromEntries(panels.map(({ axis, domain }) => [axis.replace("y", "yaxis"), { ...chartLines(), domain, nticks: 4 }]));
  const { title, ...across } = blockAxis(depth);
  const layout = {
    ...chartBase(), ...axes, margin: { l: 56, r: 16, t: 4, b: 48 },
    xaxis: { ...chartLines(), ...across, anchor: panels.at(-1).axis, title: { text: title, font, standoff: 8 } },
    annotations: panels.map(({ name, colour: kind, domain }) => ({ name, text: t(`detector.statistics.${name}`), xref: "paper", yref: "paper", x: 0, y: domain[1],
      xanchor: "left", yanchor: "bottom", showarrow: false, font: { ...font, size: 12, color: colour(kind) } })),
    shapes: startShapes(found, depth),
  };
  return Plotly.react(byId("merge-start-chart"), panels.flatMap(panel => startTraces(panel, found)), layout, PLOT);
}

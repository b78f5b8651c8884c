// Where merging may start: what the backbone's attention shows over its blocks, drawn from `phase` of the study's JSON twin.
"use strict";

const PHASE_PANELS = [ // from top to bottom; `share` is of the height
  { name: "similarity", title: "Similarity", colour: "front", share: 0.46 },
  { name: "partner", title: "Best partner", colour: "stopped", share: 0.27 },
  { name: "sink", title: "Attention sink", colour: "backbone", share: 0.27 },
];
const PHASE_GAP = 0.09; // above each panel, where its title stands
const PHASE_TOP = 0.06; // above them all, where the start is named

function phasePanels() {
  const rest = 1 - PHASE_TOP - PHASE_GAP * PHASE_PANELS.length;
  let top = 1 - PHASE_TOP;
  return PHASE_PANELS.map((panel, index) => {
    const high = top - PHASE_GAP;
    top = high - panel.share * rest;
    return { ...panel, axis: index ? `y${index + 1}` : "y", domain: [Math.max(0, top), high] };
  });
}

function phaseTraces({ name, title, colour: kind, axis }, phase) {
  const { values, low, high } = phase.curves[name];
  const x = values.map((_, block) => block + 1);
  const color = colour(kind);
  const text = values.map((value, block) => [`Block ${block + 1}`, `${title.toLowerCase()} ${value.toFixed(3)} (${low[block].toFixed(3)}–${high[block].toFixed(3)})`,
    phase.meanings[name].replace(", ", ",<br>")].join("<br>"));
  const common = { type: "scatter", x, xaxis: "x", yaxis: axis };
  return [
    { ...common, name: `${name} interval`, mode: "lines", hoverinfo: "skip", x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()],
      fill: "toself", fillcolor: `${color}33`, line: { width: 0 } },
    { ...common, name, mode: "lines+markers", y: values, text, hovertemplate: "%{text}<extra></extra>",
      line: { color, width: 2 }, marker: { color, size: values.map((_, block) => block === phase.start ? 10 : 6), opacity: 1, line: { width: 0 } } },
  ];
}

function phaseShapes({ start, low, high, detected }, depth) {
  const line = { color: colour("ink"), width: 1.5, dash: detected ? "dash" : "dot" };
  const label = { text: detected ? `start: block ${start + 1}` : `rule of thumb: block ${start + 1}`, textangle: 0, textposition: "end",
    xanchor: start < depth / 2 ? "left" : "right", yanchor: "top", padding: 4, font: { color: colour("ink"), size: 12 } };
  const band = { type: "rect", name: "start interval", x0: low + 0.75, x1: high + 1.25, y0: 0, y1: 1, yref: "paper", layer: "below",
    fillcolor: `${colour("accent")}1f`, line: { width: 0 } };
  return [...(detected ? [band] : []), { type: "line", name: "start", x0: start + 1, x1: start + 1, y0: 0, y1: 1, yref: "paper", line, label }];
}

function drawPhase() {
  const { phase } = study;
  byId("phase").hidden = !phase;
  if (!phase) return null;
  byId("phase-text").textContent = phase.text;
  const depth = phase.curves.similarity.values.length;
  const panels = phasePanels();
  const font = { family: colour("font"), size: 13, color: colour("soft") };
  const lines = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, fixedrange: true, tickfont: { size: 12 } };
  const axes = Object.fromEntries(panels.map(({ axis, domain }) =>
    [axis.replace("y", "yaxis"), { ...lines, domain, nticks: 4, automargin: true }]));
  const layout = {
    ...axes, showlegend: false, hovermode: "closest", dragmode: false, margin: { l: 56, r: 16, t: 4, b: 48 },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), align: "left", font: { ...font, color: colour("ink") } },
    xaxis: { ...lines, anchor: panels.at(-1).axis, range: [0.5, depth + 0.5], tick0: 1, dtick: Math.ceil(depth / 16), showgrid: false,
      title: { text: "Block", font, standoff: 8 } },
    annotations: panels.map(({ name, title, colour: kind, domain }) => ({ name, text: title, xref: "paper", yref: "paper", x: 0, y: domain[1],
      xanchor: "left", yanchor: "bottom", showarrow: false, font: { ...font, size: 12, color: colour(kind) } })),
    shapes: phaseShapes(phase, depth),
  };
  return Plotly.react(byId("phase-chart"), panels.flatMap(panel => phaseTraces(panel, phase)), layout,
    { responsive: true, displayModeBar: false, showTips: false });
}

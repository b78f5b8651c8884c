// What reducing one block alone costs, drawn from `sensitivity` of the study's JSON twin: a line for each share removed.
"use strict";

const REDUCTION_COLOURS = ["front", "stopped", "backbone"];
const LEAST_LOSS = 1e-6; // nats; less is not told apart on a logarithmic axis
const nats = value => value >= 0.01 ? value.toFixed(3) : value.toPrecision(2);

function lossTicks(losses) { // 1, 2, 5 of each power of ten, where it is many powers 1 alone
  const [low, high] = [Math.floor(Math.log10(Math.min(...losses))), Math.ceil(Math.log10(Math.max(...losses)))];
  const steps = high - low > 2 ? [1] : [1, 2, 5];
  return Array.from({ length: high - low + 1 }, (_, index) => steps.map(step => Number(`${step}e${low + index}`))).flat();
}

function sensitivityTrace(reduction, blocks, strength, kind) {
  const points = blocks.map(shares => shares[strength]);
  const loss = points.map(point => Math.max(point.loss, LEAST_LOSS));
  const color = colour(kind);
  const text = points.map(({ removed, loss: value, low, high }, block) => [`Block ${block + 1} alone`,
    `${reduction} removes ${percent(removed)} of its tokens`, `${nats(value)} nats (${nats(Math.max(0, low))}–${nats(high)})`].join("<br>"));
  return { type: "scatter", name: `${reduction} ${strength}`, mode: "lines+markers+text", x: points.map((_, block) => block + 1), y: loss,
    hovertext: text, hovertemplate: "%{hovertext}<extra></extra>", cliponaxis: false, textposition: "middle right", textfont: { size: 12, color },
    text: points.map(({ removed }, block) => block === points.length - 1 ? `  ${reduction} ${Math.round(100 * removed)}%` : ""),
    line: { color, width: 2, dash: ["solid", "dash", "dot"][strength % 3] }, marker: { color, size: 6, opacity: 1, line: { width: 0 } },
    error_y: { type: "data", symmetric: false, thickness: 1.2, width: 0, color: `${color}77`, array: points.map(({ high }, at) => Math.max(0, high - loss[at])),
      arrayminus: points.map(({ low }, at) => Math.max(0, loss[at] - Math.max(low, loss[at] / 10))) } };
}

function drawSensitivity() {
  const { sensitivity } = study;
  byId("sensitivity").hidden = !sensitivity;
  if (!sensitivity) return null;
  byId("sensitivity-text").textContent = "Loss where one block alone is reduced: divergence of the answers from the backbone's, "
    + `over ${sensitivity.images} images. Right: the share of the block's tokens that is removed. 95% intervals.`;
  const reductions = Object.entries(sensitivity.points);
  const traces = reductions.flatMap(([reduction, blocks], index) =>
    blocks[0].map((_, strength) => sensitivityTrace(reduction, blocks, strength, REDUCTION_COLOURS[index % REDUCTION_COLOURS.length])));
  const ticks = lossTicks(traces.flatMap(({ y }) => y));
  const depth = Math.max(...reductions.map(([, blocks]) => blocks.length));
  const layout = profileLayout({
    xaxis: { title: "Block", range: [0.5, depth + 0.5], tick0: 1, dtick: Math.ceil(depth / 16), showgrid: false },
    yaxis: { title: "Loss, nats", type: "log", tickvals: ticks, ticktext: ticks.map(String) },
  });
  layout.margin.r = 104; // for the names of the lines
  return Plotly.react(byId("sensitivity-chart"), traces, layout, { responsive: true, displayModeBar: false, showTips: false });
}

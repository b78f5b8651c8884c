// What reducing one block alone costs, drawn from `sensitivity` of the detector's JSON twin: a line for each strength.
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
  const name = t(`reductions.${reduction}.name`);
  const text = points.map(({ strength: done, loss: value, low, high }, block) => [t("detector.spare.alone", { block: block + 1 }),
    t(`reductions.${reduction}.probe`, { share: percent(done) }),
    t("detector.spare.loss", { loss: nats(value), low: nats(Math.max(0, low)), high: nats(high) })].join("<br>"));
  return { type: "scatter", name: `${reduction} ${strength}`, mode: "lines+markers+text", x: points.map((_, block) => block + 1), y: loss,
    hovertext: text, hovertemplate: "%{hovertext}<extra></extra>", cliponaxis: false, textposition: "middle right", textfont: { size: 12, color },
    text: points.map(({ strength: done }, block) => block === points.length - 1 ? `  ${name} ${Math.round(100 * done)}%` : ""),
    line: { color, width: 2, dash: ["solid", "dash", "dot"][strength % 3] }, marker: { color, size: 6, opacity: 1, line: { width: 0 } },
    error_y: { type: "data", symmetric: false, thickness: 1.2, width: 0, color: `${color}77`, array: points.map(({ high }, at) => Math.max(0, high - loss[at])),
      arrayminus: points.map(({ low }, at) => Math.max(0, loss[at] - Math.max(low, loss[at] / 10))) } };
}

function drawSensitivity(sensitivity) {
  byId("sensitivity-missing").hidden = Boolean(sensitivity);
  byId("sensitivity").hidden = !sensitivity;
  if (!sensitivity) return null;
  byId("sensitivity-text").textContent = t("detector.spare.hint", { count: sensitivity.images });
  const reductions = Object.entries(sensitivity.points).filter(([, blocks]) => blocks.length); // some have nothing to probe
  const traces = reductions.flatMap(([reduction, blocks], index) =>
    blocks[0].map((_, strength) => sensitivityTrace(reduction, blocks, strength, REDUCTION_COLOURS[index % REDUCTION_COLOURS.length])));
  const ticks = lossTicks(traces.flatMap(({ y }) => y));
  const depth = Math.max(...reductions.map(([, blocks]) => blocks.length));
  const layout = chartLayout({
    xaxis: blockAxis(depth), yaxis: { title: t("detector.spare.axis"), type: "log", tickvals: ticks, ticktext: ticks.map(String) },
    margin: { l: 56, r: 128, t: 12, b: 48 }, // for the names of the lines
  });
  return Plotly.react(byId("sensitivity-chart"), traces, layout, PLOT);
}

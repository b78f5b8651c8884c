// Which parameters mattered, drawn from `importance` of the study's JSON twin: the shares that blocks keep over depth, and all
// parameters with those of all blocks added up.
"use strict";

const WORTH = [ // the objectives, and how they are drawn
  { objective: "accuracy", colour: "front" },
  { objective: "latency_ratio", colour: "infeasible" },
];
const methodShown = () => document.querySelector("input[name=method]:checked").value;

function worthBars({ objective, colour: kind }, values, names, more) {
  const text = values.map((share, index) => `${escaped(names[index])}<br>${percent(share)} ${t(`importance.of.${objective}`)}`);
  return { type: "bar", name: objective, hovertext: text, hovertemplate: "%{hovertext}<extra></extra>", textposition: "none",
    marker: { color: colour(kind), line: { width: 0 } }, ...more };
}

function drawImportantBlocks(blocks) {
  const groups = Object.keys(blocks.accuracy);
  const traces = groups.flatMap((group, index) => WORTH.map(one => {
    const shares = blocks[one.objective][group];
    const trace = worthBars(one, shares, shares.map((_, block) => t("importance.of_block", { parameter: group, block: block + 1 })),
      { x: shares.map((_, block) => block + 1), y: shares.map(share => 100 * share) });
    trace.marker.opacity = index ? 0.5 : 1;
    return trace;
  }));
  const depth = Math.max(...groups.map(group => blocks.accuracy[group].length));
  const layout = chartLayout({
    barmode: "group", bargap: 0.25, xaxis: { title: t("detector.block"), tick0: 1, dtick: Math.ceil(depth / 16), showgrid: false },
    yaxis: { title: t("importance.axis"), ticksuffix: "%", rangemode: "tozero", nticks: 6 },
  });
  return Plotly.react(byId("importance-blocks"), traces, layout, PLOT);
}

function drawImportantParameters(parameters) {
  const names = Object.keys(parameters.accuracy).reverse(); // plotly draws from the bottom up
  const traces = [...WORTH].reverse().map(one => {
    const shares = names.map(name => parameters[one.objective][name]);
    return worthBars(one, shares, names, { orientation: "h", x: shares.map(share => 100 * share), y: names });
  });
  const layout = chartLayout({
    barmode: "group", bargap: 0.3, xaxis: { title: t("importance.axis"), ticksuffix: "%", rangemode: "tozero", nticks: 6 },
    yaxis: { title: "", showgrid: false },
  });
  return Plotly.react(byId("importance-parameters"), traces, layout, PLOT);
}

function importanceNotes({ trials, methods, blocks }, method) {
  const groups = Object.keys(blocks[method].accuracy);
  byId("importance-text").textContent = sentences(t("importance.told", { count: trials, method: methods[method] }),
    groups.length > 1 && t("importance.by_block", { bright: groups[0], faint: groups.slice(1).join(", ") }));
  byId("importance-legend").replaceChildren(...WORTH.map(({ objective, colour: kind }) => {
    const swatch = element("span", { ariaHidden: "true" }, "■");
    swatch.style.setProperty("--kind", `var(--${kind})`);
    return element("li", {}, swatch, t(`importance.of.${objective}`));
  }));
}

function drawImportance() {
  const { importance } = study;
  byId("importance").hidden = !importance;
  if (!importance) return null;
  const method = methodShown();
  importanceNotes(importance, method);
  return Promise.all([drawImportantBlocks(importance.blocks[method]), drawImportantParameters(importance.parameters[method])]);
}

for (const input of document.getElementsByName("method")) input.addEventListener("change", () => draw());

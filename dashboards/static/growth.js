// How the front has grown: its hypervolume after each trial, and what more trials are expected to add.
"use strict";

function drawGrowth() {
  const { outlook, optimism, unpaid, ended } = study;
  const known = outlook && outlook.steps.length > 1;
  const texts = [ended && study.state === "complete" && t("study.ended", { reason: ended }), optimism?.text, outlook?.text, unpaid?.text].filter(Boolean);
  byId("growth").hidden = !known && !texts.length;
  byId("standing").replaceChildren(...texts.map(text => element("p", {}, text)));
  byId("growth-chart").hidden = !known;
  if (!known) return null;
  const color = colour("front");
  const [x, y] = [outlook.steps.map(([trial]) => trial), outlook.steps.map(([, volume]) => 100 * volume)];
  const text = outlook.steps.map(([count, volume]) => t("study.hover.volume", { count, volume: percent(volume) }));
  const line = { name: "hypervolume", type: "scatter", mode: "lines", x, y, text, hovertemplate: "%{text}<extra></extra>", line: { color, width: 2, shape: "hv" } };
  const layout = chartLayout({
    xaxis: { title: t("study.axis.trials"), rangemode: "tozero", showgrid: false }, yaxis: { title: t("study.axis.hypervolume"), ticksuffix: "%", nticks: 6 },
  });
  return Plotly.react(byId("growth-chart"), [line], layout, PLOT);
}

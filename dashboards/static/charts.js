// What several charts are drawn with, and how a page follows its JSON twin.
"use strict";

const PLOT = { responsive: true, displayModeBar: false, showTips: false };
const FOLLOW_MS = 5000;
const brief = value => value >= 100 ? value.toFixed(0) : value.toPrecision(3);
const sentences = (...parts) => parts.filter(Boolean).reduce((first, second) => t("sentences.after", { first, second }));

function chartFont() {
  return { family: colour("font"), size: 13, color: colour("soft") };
}

function chartLines() {
  return { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, fixedrange: true, automargin: true, tickfont: { size: 12 } };
}

function chartBase() { // a layout without its axes
  const font = chartFont();
  return {
    font, showlegend: false, hovermode: "closest", dragmode: false, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), align: "left", font: { ...font, color: colour("ink") } },
  };
}

function chartLayout(more) {
  const axis = ({ title, ...rest }) => ({ ...chartLines(), ...rest, title: { text: title, font: chartFont(), standoff: 8 } });
  return { margin: { l: 56, r: 16, t: 12, b: 48 }, ...more, ...chartBase(), xaxis: axis(more.xaxis), yaxis: axis(more.yaxis) };
}

function blockAxis(depth, more = {}) {
  return { title: t("detector.block"), range: [0.5, depth + 0.5], tick0: 1, dtick: Math.ceil(depth / (innerWidth < 700 ? 8 : 16)),
    tickangle: 0, showgrid: false, ...more };
}

function shaded(name, x, low, high, color) {
  return { name, type: "scatter", mode: "lines", hoverinfo: "skip", x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()],
    fill: "toself", fillcolor: color, line: { width: 0 } };
}

function followTwin(url, draw) { // draws a twin, and again while its study runs or when the colours change
  let twin = null;
  let received = "";
  async function refresh() {
    try {
      const response = await fetch(url);
      if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
      const text = await response.text();
      if (text !== received) {
        [received, twin] = [text, JSON.parse(text)];
        await draw(twin);
      }
    } catch (error) {
      console.warn(error);
    }
    if (!twin || twin.state === "running") setTimeout(refresh, FOLLOW_MS);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => twin && draw(twin));
  refresh();
}

// The latency profile of the backbone, drawn from `profile` of the study's JSON twin: what a block takes over its tokens, with
// the blocks of the chosen trial on it, and how well whole schedules were predicted.
"use strict";

const brief = value => value >= 100 ? value.toFixed(0) : value.toPrecision(3);
const blockNames = blocks => blocks.length === 1 ? `Block ${blocks[0]}` : `Blocks ${blocks.slice(0, -1).join(", ")} and ${blocks.at(-1)}`;

function profileFont() {
  return { family: colour("font"), size: 13, color: colour("soft") };
}

function profileLayout(more) {
  const font = profileFont();
  const lines = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, fixedrange: true, automargin: true, tickfont: { size: 12 } };
  const axis = ({ title, ...rest }) => ({ ...lines, ...rest, title: { text: title, font, standoff: 8 } });
  return {
    ...more, xaxis: axis(more.xaxis), yaxis: axis(more.yaxis), font, showlegend: false, hovermode: "closest", dragmode: false,
    margin: { l: 56, r: 16, t: 12, b: 48 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), align: "left", font: { ...font, color: colour("ink") } },
  };
}

function shaded(name, x, low, high, color) {
  return { name, type: "scatter", mode: "lines", hoverinfo: "skip", x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()],
    fill: "toself", fillcolor: color, line: { width: 0 } };
}

// --- what a block takes ---
function timeAt({ counts, fitted }, tokens) { // on a straight line between measured counts
  const next = counts.findIndex(count => count >= tokens);
  if (next <= 0) return fitted.at(next);
  const share = (tokens - counts[next - 1]) / (counts[next] - counts[next - 1]);
  return fitted[next - 1] + share * (fitted[next] - fitted[next - 1]);
}

function standings(trial) { // [tokens that enter, blocks], blocks counted from 1
  const entering = [study.backbone.tokens, ...trial.tokens.slice(0, -1)];
  const blocks = new Map();
  entering.forEach((tokens, block) => blocks.set(tokens, [...blocks.get(tokens) ?? [], block + 1]));
  return [...blocks];
}

function blockText(block, tokens) { // the same at a measured count and at a block that stands there, which hide each other
  const ms = timeAt(block, tokens);
  const at = block.counts.indexOf(tokens);
  const trial = chosenTrial();
  const [, blocks] = trial && standings(trial).find(([count]) => count === tokens) || [];
  return [
    `${tokens} tokens`,
    `${brief(ms)} ms a block${at < 0 ? "" : ` (${brief(block.low[at])}–${brief(block.high[at])})`}, ${brief(1000 * ms / tokens)} µs a token`,
    blocks && `${blockNames(blocks)} of trial ${trial.number} start${blocks.length > 1 ? "" : "s"} with them`,
  ].filter(Boolean).join("<br>");
}

function chosenTraces({ block }) {
  const trial = chosenTrial();
  const places = trial ? standings(trial) : [];
  const x = places.map(([tokens]) => tokens);
  const y = x.map(tokens => timeAt(block, tokens));
  const color = colour("ink");
  const common = { type: "scatter", x, y };
  const drops = { ...common, name: "drops", mode: "lines", hoverinfo: "skip", x: x.flatMap(tokens => [tokens, tokens, null]),
    y: y.flatMap(ms => [0, ms, null]), line: { color: `${color}55`, width: 1 } };
  const points = { ...common, name: "chosen", mode: "markers+text", textposition: "top left", textfont: { size: 11, color }, cliponaxis: false,
    text: places.map(([, blocks]) => blocks.length > 1 ? `${blocks.length}×` : ""),
    hovertext: x.map(tokens => blockText(block, tokens)), hovertemplate: "%{hovertext}<extra></extra>",
    marker: { symbol: "diamond", size: 10, color: colour("card"), opacity: 1, line: { color, width: 1.8 } } };
  return [drops, points];
}

function drawBlock(profile) {
  const { counts, low, high, fitted } = profile.block;
  const color = colour("front");
  const text = counts.map(tokens => blockText(profile.block, tokens));
  const line = { name: "block", type: "scatter", mode: "lines+markers", x: counts, y: fitted, text, hovertemplate: "%{text}<extra></extra>",
    line: { color, width: 2 }, marker: { color, size: 6, opacity: 1, line: { width: 0 } } };
  const flat = ([first, last]) => ({ type: "rect", name: "free", x0: first, x1: last, y0: 0, y1: 1, yref: "paper", layer: "below",
    fillcolor: `${colour("good")}2b`, line: { width: 0 } });
  const images = profile.batch_size === 1 ? "1 image" : `${profile.batch_size} images`;
  const layout = profileLayout({
    xaxis: { title: "Tokens", range: [0, counts.at(-1) * 1.03], showgrid: false },
    yaxis: { title: `ms for ${images}`, rangemode: "tozero", nticks: 7 },
    shapes: profile.flats.map(flat),
  });
  return Plotly.react(byId("profile-block"), [shaded("block interval", counts, low, high, `${color}33`), line, ...chosenTraces(profile)], layout,
    { responsive: true, displayModeBar: false, showTips: false });
}

// --- how good predictions are ---
function drawChecks({ checks, margin }) {
  const ends = checks.flatMap(({ low, high, predicted }) => [low, high, predicted]).map(share => 100 * share);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const range = [least - 0.06 * (most - least), most + 0.06 * (most - least)];
  const color = colour("front");
  const arms = arm => checks.map(check => Math.max(0, 100 * arm(check)));
  const text = checks.map(({ schedule, measured, low, high, predicted, macs: share }) => [`measured ${percent(measured)} (${interval({ low, high })})`,
    `predicted ${percent(predicted)}, ${Math.abs(100 * (predicted / measured - 1)).toFixed(1)}% off`, `${percent(share)} of the MACs, schedule ${schedule}`].join("<br>"));
  const points = { name: "checks", type: "scatter", mode: "markers", x: checks.map(({ predicted }) => 100 * predicted), y: checks.map(({ measured }) => 100 * measured),
    text, hovertemplate: "%{text}<extra></extra>", marker: { color, size: 8, opacity: 1, line: { width: 0 } },
    error_y: { type: "data", symmetric: false, thickness: 1.2, width: 0, color: `${color}77`,
      array: arms(({ measured, high }) => high - measured), arrayminus: arms(({ measured, low }) => measured - low) } };
  const diagonal = { name: "diagonal", type: "scatter", mode: "lines", hoverinfo: "skip", x: range, y: range, line: { color: colour("soft"), width: 1.5, dash: "dash" } };
  const sure = shaded("margin", range, range.map(end => end / (1 + margin)), range.map(end => end * (1 + margin)), `${colour("soft")}22`);
  const axis = { range, ticksuffix: "%", nticks: 7 };
  const layout = profileLayout({
    xaxis: { ...axis, title: "Predicted, % of the backbone" }, yaxis: { ...axis, title: "Measured, % of the backbone" },
  });
  return Plotly.react(byId("profile-checks"), [sure, diagonal, points], layout, { responsive: true, displayModeBar: false, showTips: false });
}

function profileNotes(profile) {
  const forms = Object.entries(profile.rivals_ms).sort(([, one], [, other]) => one - other).map(([form, ms]) => `${form} ${milliseconds(ms)}`);
  const about = [profile.device, `batch of ${profile.batch_size}`, profile.dtype, profile.compiled && "compiled"].filter(Boolean).join(", ");
  const trial = chosenTrial();
  byId("profile-text").textContent = profile.text;
  byId("profile-marks").textContent = [trial && `Diamonds: what the blocks of trial ${trial.number} start with.`,
    profile.flats.length && "Green: tokens that cost no more time.", "Shaded: 95% interval."].filter(Boolean).join(" ");
  byId("profile-about").textContent = [`The backbone takes ${milliseconds(profile.backbone_ms)} (${forms.join(", ")}) on ${about}.`,
    profile.noisy && `Noisy: ${profile.noisy}.`].filter(Boolean).join(" ");
}

function drawProfile() {
  const { profile } = study;
  byId("profile").hidden = !profile;
  if (!profile) return null;
  profileNotes(profile);
  const checked = profile.checks.length > 0;
  byId("profile-checked").hidden = !checked;
  return Promise.all([drawBlock(profile), checked && drawChecks(profile)]);
}

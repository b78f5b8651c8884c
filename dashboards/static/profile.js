// The profile page, drawn from its JSON twin: what a block takes over its tokens, with the blocks of the chosen trial on it,
// and how well whole schedules were predicted.
"use strict";

// --- what a block takes ---
function blockText(profile, trial, tokens) { // the same at a measured count and at a block that stands there, which hide each other
  const at = profile.block.counts.indexOf(tokens);
  const step = trial?.steps.find(one => one.tokens === tokens);
  const ms = at < 0 ? step.ms : profile.block.fitted[at];
  const range = at < 0 ? "" : ` (${brief(profile.block.low[at])}–${brief(profile.block.high[at])})`;
  return [
    t("profile.tokens", { count: tokens }),
    t("profile.block_time", { time: `${brief(ms)} ms`, range, each: `${brief(1000 * ms / tokens)} µs` }),
    step && t("profile.blocks_start", { count: step.count, blocks: step.blocks, trial: trial.number }),
  ].filter(Boolean).join("<br>");
}

function chosenTraces(profile, trial) {
  const steps = trial?.steps ?? [];
  const x = steps.map(({ tokens }) => tokens);
  const y = steps.map(({ ms }) => ms);
  const color = colour("ink");
  const common = { type: "scatter", x, y };
  const drops = { ...common, name: "drops", mode: "lines", hoverinfo: "skip", x: x.flatMap(tokens => [tokens, tokens, null]),
    y: y.flatMap(ms => [0, ms, null]), line: { color: `${color}55`, width: 1 } };
  const points = { ...common, name: "chosen", mode: "markers+text", textposition: "top left", textfont: { size: 11, color }, cliponaxis: false,
    text: steps.map(({ count }) => count > 1 ? `${count}×` : ""),
    hovertext: x.map(tokens => blockText(profile, trial, tokens)), hovertemplate: "%{hovertext}<extra></extra>",
    marker: { symbol: "diamond", size: 10, color: colour("card"), opacity: 1, line: { color, width: 1.8 } } };
  return [drops, points];
}

function drawBlock(profile, trial) {
  const { counts, low, high, fitted } = profile.block;
  const color = colour("front");
  const text = counts.map(tokens => blockText(profile, trial, tokens));
  const line = { name: "block", type: "scatter", mode: "lines+markers", x: counts, y: fitted, text, hovertemplate: "%{text}<extra></extra>",
    line: { color, width: 2 }, marker: { color, size: 6, opacity: 1, line: { width: 0 } } };
  const flat = ([first, last]) => ({ type: "rect", name: "free", x0: first, x1: last, y0: 0, y1: 1, yref: "paper", layer: "below",
    fillcolor: `${colour("good")}2b`, line: { width: 0 } });
  const layout = chartLayout({
    xaxis: { title: t("profile.tokens_axis"), range: [0, counts.at(-1) * 1.03], showgrid: false },
    yaxis: { title: t("profile.time_axis", { count: profile.batch_size }), rangemode: "tozero", nticks: 7 },
    shapes: profile.flats.map(flat),
  });
  return Plotly.react(byId("profile-block"), [shaded("block interval", counts, low, high, `${color}33`), line, ...chosenTraces(profile, trial)],
    layout, PLOT);
}

// --- how good predictions are ---
function checkText({ schedule, measured, low, high, predicted, macs: share }) {
  return [
    t("profile.check_measured", { share: percent(measured), range: interval({ low, high }) }),
    t("profile.check_predicted", { share: percent(predicted), off: percent(Math.abs(predicted / measured - 1)) }),
    t("profile.check_schedule", { share: percent(share), schedule }),
  ].join("<br>");
}

function drawChecks({ checks, margin }) {
  const ends = checks.flatMap(({ low, high, predicted }) => [low, high, predicted]).map(share => 100 * share);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const range = [least - 0.06 * (most - least), most + 0.06 * (most - least)];
  const color = colour("front");
  const arms = arm => checks.map(check => Math.max(0, 100 * arm(check)));
  const points = { name: "checks", type: "scatter", mode: "markers", x: checks.map(({ predicted }) => 100 * predicted), y: checks.map(({ measured }) => 100 * measured),
    text: checks.map(checkText), hovertemplate: "%{text}<extra></extra>", marker: { color, size: 8, opacity: 1, line: { width: 0 } },
    error_y: { type: "data", symmetric: false, thickness: 1.2, width: 0, color: `${color}77`,
      array: arms(({ measured, high }) => high - measured), arrayminus: arms(({ measured, low }) => measured - low) } };
  const diagonal = { name: "diagonal", type: "scatter", mode: "lines", hoverinfo: "skip", x: range, y: range, line: { color: colour("soft"), width: 1.5, dash: "dash" } };
  const sure = shaded("margin", range, range.map(end => end / (1 + margin)), range.map(end => end * (1 + margin)), `${colour("soft")}22`);
  const axis = { range, ticksuffix: "%", nticks: 7 };
  const layout = chartLayout({ xaxis: { ...axis, title: t("profile.predicted_axis") }, yaxis: { ...axis, title: t("profile.measured_axis") } });
  return Plotly.react(byId("profile-checks"), [sure, diagonal, points], layout, PLOT);
}

// --- in words ---
function latencyOf({ number, predicted, measured }) {
  const range = one => ({ share: percent(one.value), range: interval(one) });
  return sentences(
    measured && t("profile.trial_measured", { trial: number, ...range(measured) }),
    predicted && t("profile.trial_predicted", { trial: number, ...range(predicted) }),
  );
}

function drawNotes(profile, trial) {
  const about = [profile.device, t("profile.batch", { count: profile.batch_size }), profile.dtype, profile.compiled && t("profile.compiled")];
  byId("profile-text").textContent = profile.text;
  byId("profile-marks").textContent = sentences(trial && t("profile.diamonds", { trial: trial.number }), profile.flats.length && t("profile.green"),
    t("profile.shaded"));
  byId("profile-trial-text").textContent = trial && (trial.measured || trial.predicted) ? latencyOf(trial) : "";
  byId("profile-about").textContent = sentences(
    t("profile.about", { time: milliseconds(profile.backbone_ms), device: about.filter(Boolean).join(t("profile.comma")) }),
    profile.noisy && t("profile.noisy", { reason: profile.noisy }));
}

function drawFree({ flats }) {
  const row = ([low, high]) => element("li", {}, t("profile.free_stretch", { low, high, count: high - low }));
  byId("free").replaceChildren(...flats.length ? flats.map(row) : [element("li", {}, t("profile.free_none"))]);
}

function drawForms({ forms_ms: times }) { // compared with one another: they were timed in turn, and the rest of the profile was not
  const fastest = Math.min(...Object.values(times));
  const forms = Object.entries(times).sort(([, one], [, other]) => one - other);
  byId("forms").replaceChildren(...forms.map(([form, ms]) => element("div", {}, element("dt", {}, t(`profile.forms.${form}`)),
    element("dd", { className: "value" }, milliseconds(ms)),
    element("dd", { className: "note" }, ms > fastest ? t("profile.slower", { factor: (ms / fastest).toFixed(2) }) : t("profile.fastest")))));
}

function drawProfile({ profile, trial }) {
  byId("missing").hidden = Boolean(profile);
  byId("profile").hidden = !profile;
  if (!profile) return null;
  drawNotes(profile, trial);
  drawFree(profile);
  drawForms(profile);
  const checked = profile.checks.length > 0;
  byId("profile-checked").hidden = !checked;
  return Promise.all([drawBlock(profile, trial), checked && drawChecks(profile)]);
}

byId("profile-trial")?.addEventListener("change", ({ target }) => location.assign(`?trial=${target.value}`));
followTwin(byId("profile").dataset.twin, drawProfile);

// The study page: drawn from the page's JSON twin, and drawn again while the study runs.
"use strict";

const twin = byId("study").dataset.twin;
let study = null; // the JSON twin as it was last read
let chosen = Number(location.hash.match(/^#trial-(\d+)$/)?.[1] ?? NaN); // NaN: whatever is best for the budget

const numbered = number => study.trials.find(trial => trial.number === number);
const backbone = () => study.trials.find(trial => trial.kind === "backbone");
const large = () => backbone()?.judged.macs.value >= 1e9;
const chosenTrial = () => numbered(chosen) ?? fitting();

function accuracyName() {
  return t(study.against === "backbone" ? "study.agreement" : "study.accuracy");
}

// --- life ---
async function draw() {
  if (!study) return;
  const first = !chart.on;
  if (first) begin();
  const empty = drawFrame();
  for (const part of [drawCounts, drawTiles, drawPanel, drawTable]) part();
  if (!empty) {
    await drawChart();
    drawBudget();
  }
  if (first && chart.on) {
    chart.on("plotly_click", ({ points }) => choose(points[0].customdata));
    chart.on("plotly_relayout", moved => { if (Object.keys(moved).some(key => key.startsWith("xaxis"))) drawBudget(); });
  }
  await Promise.all([drawGrowth(), drawImportance()]);
}

function choose(number) {
  chosen = number;
  history.replaceState(null, "", `#trial-${number}`);
  draw();
}

const isOn = name => study.trials.some(trial => trial.judged[name]);

function drawFrame() { // only what there is something to show in
  const axes = [...document.getElementsByName("axis")];
  for (const input of axes) input.parentElement.hidden = !isOn(input.value);
  const empty = !axes.some(({ value }) => isOn(value));
  for (const id of ["chart", "slider", "how"]) byId(id).hidden = empty;
  axes[0].closest("fieldset").hidden = empty;
  byId("front-card").hidden = !study.trials.some(({ front }) => front);
  byId("blank").hidden = !empty;
  byId("blank").textContent = t(study.state === "running" ? "study.not_yet" : "study.nothing_measured");
  byId("broken").hidden = study.state !== "failed";
  byId("broken").textContent = study.ended ?? t("study.no_reason");
  return empty;
}

function begin() { // on the axis that the study's budget is given on
  axis = study.limit.objective;
  document.querySelector(`input[name=axis][value=${axis}]`).checked = true;
}

function turn(name) { // to another axis; the budget, and what is recommended for it, stay
  axis = name;
  draw();
}

for (const input of document.getElementsByName("axis")) input.addEventListener("change", () => turn(input.value));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
watch(twin, twin.replace(/\.json$/, "/events"), text => {
  study = JSON.parse(text);
  return draw();
});

// The sliders below the chart: from a budget, or from the most that may be lost, to the schedule that is recommended for it.
"use strict";

const STEPS = 1000;
const POINTS = 1000; // steps of the other slider in a loss of 1: tenths of a point, as losses are shown
const slider = byId("budget");
const lossSlider = byId("loss");
let asked = null; // { axis, value } where a slider was moved, of the other one { axis: "loss", value }; null: as the study was launched

const choicesOf = name => study.choices[name] ?? [];
const isOwn = () => asked === null;
const askedAxis = () => asked?.axis ?? axis;

// The budget itself stays what it is, whichever axis is shown.
const budgetNow = () => asked && asked.axis !== "loss" ? asked : { axis: study.limit.objective, value: study.limit.value, tail: study.limit.tail };

function converted({ axis: from, value, tail }, to) { // shares and milliseconds by the backbone's time; null what cannot be said there
  const { backbone_ms: reference } = study.limit;
  if (from === to) return value;
  if (!reference || tail) return null;
  if (to === "latency_ms" && from === "latency_ratio") return value * reference;
  return to === "latency_ratio" && from === "latency_ms" ? value / reference : null;
}

function span() { // what the slider goes over: from the cheapest that may be chosen to what the backbone takes
  const limits = choicesOf(axis).map(({ limit }) => limit);
  const own = [converted(budgetNow(), axis)].filter(value => value !== null);
  const dense = onAxis(backbone())?.high;
  const ends = [...limits, ...own, ...(dense ? [dense] : [])];
  return ends.length ? [0.98 * Math.min(...ends), 1.01 * Math.max(...ends)] : [0, 1];
}

const wanted = () => converted(budgetNow(), axis) ?? onAxis(fitting())?.high ?? span()[1]; // where it stands on the axis
const pointsOf = share => `${Math.round(POINTS * share) / (POINTS / 100)}`;

function wantedText() {
  if (isOwn()) return study.budget;
  return asked.axis === "loss" ? t("study.loss_of", { points: pointsOf(asked.value) }) : AXES[asked.axis].show(asked.value);
}

const budgetText = () => asked?.axis === "loss" ? study.budget : wantedText();

function alsoText() { // the same budget the other way: milliseconds of a share, or a share of milliseconds
  const other = { latency_ratio: "latency_ms", latency_ms: "latency_ratio" }[budgetNow().axis];
  const value = other ? converted(budgetNow(), other) : null;
  return value === null ? "" : t("study.also", { budget: AXES[other].show(value), ms: milliseconds(study.limit.backbone_ms) });
}

function askedFor() { // as an export takes it, rounded up so that what fits still does; null for the study's own, or none of latency
  const units = { latency_ratio: [100, "%"], latency_ms: [1, "ms"] };
  if (asked?.axis === "loss") return { name: "max_accuracy_drop", value: `${pointsOf(asked.value)}%` };
  if (isOwn() || !(asked.axis in units)) return null;
  const [scale, unit] = units[asked.axis];
  return { name: "budget", value: `${Math.ceil(1e4 * scale * asked.value) / 1e4}${unit}` };
}

// What is recommended for what is asked, and what it is to be weighed against, as the server has found by its one rule.
const choice = () => isOwn() ? study.choice : choicesOf(asked.axis).findLast(({ limit }) => limit <= asked.value + 1e-9 * (asked.axis === "loss"));
const fitting = () => numbered(choice()?.trial);
const finest = () => numbered(choice()?.most_accurate);
const tradeText = () => study.trades[`${choice()?.trial}-${choice()?.most_accurate}`];

function drawBudget() {
  const [low, high] = span();
  const { l, w } = chart._fullLayout?._size ?? { l: 64, w: chart.clientWidth - 80 };
  const room = byId("slider");
  room.style.setProperty("--left", `${l}px`);
  room.style.setProperty("--width", `${w}px`);
  const full = chart._fullLayout?.xaxis.range.map(end => end / AXES[axis].scale()) ?? [low, high]; // as the chart, unless it is zoomed in
  const [least, most] = full[0] <= low && full[1] >= high ? full : [low, high];
  Object.assign(slider, { min: 0, max: STEPS, step: 1, value: Math.round(STEPS * (wanted() - least) / (most - least)), disabled: !choicesOf(axis).length });
  slider.dataset.low = least;
  slider.dataset.high = most;
  const losses = choicesOf("loss").map(({ limit }) => limit);
  byId("losses").hidden = !losses.length;
  Object.assign(lossSlider, { min: 0, max: Math.round(POINTS * Math.max(0, ...losses)) + 1, step: 1 });
  tellBudget();
}

function tellBudget() {
  const trial = fitting();
  const found = trial ? t("study.fits", { number: trial.number, accuracy: percent((trial.held_out ?? trial.judged.accuracy).value) }) : t("study.fits_none");
  slider.setAttribute("aria-valuetext", `${wantedText()}: ${found}`);
  const losing = asked?.axis === "loss";
  byId("budget-value").textContent = budgetText();
  byId("budget-also").textContent = alsoText();
  byId("budget-found").textContent = losing ? "" : found;
  byId("budget-reset").hidden = asked === null;
  tellLoss(losing, trial);
}

function tellLoss(losing, trial) {
  const most = losing ? asked.value : study.choice.max_drop;
  const ratio = trial?.judged.latency_ratio;
  if (!losing) lossSlider.value = most === null ? lossSlider.max : Math.round(POINTS * most);
  byId("loss-value").textContent = most === null ? t("study.loss_any") : t("study.loss_points", { points: pointsOf(most) });
  byId("loss-found").textContent = !losing ? "" : ratio ? t("study.losing", { number: trial.number, latency: percent(ratio.value) }) : t("study.fits_none");
  lossSlider.setAttribute("aria-valuetext", [byId("loss-value").textContent, byId("loss-found").textContent].filter(Boolean).join(": "));
}

let moving = 0;

function follow() { // once for each frame, however fast the slider is moved
  cancelAnimationFrame(moving);
  moving = requestAnimationFrame(() => {
    for (const part of [tellBudget, drawTiles, drawPanel, drawTable, moveBudget]) part();
  });
}

function ask(value, on = axis) { // null: the study's own budget
  asked = value === null ? null : { axis: on, value };
  chosen = NaN;
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  follow();
}

slider.addEventListener("input", () => {
  const { low, high } = slider.dataset;
  ask(Number(low) + (Number(high) - Number(low)) * slider.value / STEPS);
});
lossSlider.addEventListener("input", () => ask(lossSlider.value / POINTS, "loss"));
byId("budget-reset").addEventListener("click", () => {
  ask(null);
  drawBudget();
  slider.focus();
});

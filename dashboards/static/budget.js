// The budget slider, below the chart and as wide as its plot: from a budget to the best schedule that fits it.
"use strict";

const STEPS = 1000;
const slider = byId("budget");
let asked = null; // { axis, value } where the slider was moved; null: the study's own budget

const choicesOf = name => study.choices[name] ?? [];

function ownBudget() { // the study's budget on this axis, where it can be said
  const { value, objective } = study.limit;
  if (objective === axis) return value;
  const reference = backbone()?.judged.latency_ms?.value;
  if (reference && axis === "latency_ms") return value * reference;
  if (reference && axis === "latency_ratio") return value / reference;
  return numbered(study.best?.trial)?.judged[axis]?.high ?? span()[1];
}

function span() { // what the slider goes over: from the cheapest that may be chosen to what the backbone takes
  const limits = choicesOf(axis).map(({ limit }) => limit);
  const own = study.limit.objective === axis ? [study.limit.value] : [];
  const dense = backbone()?.judged[axis]?.high;
  const ends = [...limits, ...own, ...(dense ? [dense] : [])];
  return ends.length ? [0.98 * Math.min(...ends), 1.01 * Math.max(...ends)] : [0, 1];
}

const wanted = () => asked?.axis === axis ? asked.value : ownBudget();
const isOwn = () => asked?.axis !== axis && study.limit.objective === axis;
const wantedText = () => isOwn() ? study.budget : AXES[axis].show(wanted());

function askedBudget() { // as `vittle export` takes it, rounded up so that what fits still does; null for the study's own, or none of latency
  const units = { latency_ratio: [100, "%"], latency_ms: [1, "ms"] };
  if (isOwn() || !(axis in units)) return null;
  const [scale, unit] = units[axis];
  return `${Math.ceil(1e4 * scale * wanted()) / 1e4}${unit}`;
}

function fitting() { // the best trial within the wanted budget, as the study ranks its trials
  if (isOwn()) return numbered(study.best?.trial);
  return numbered(choicesOf(axis).findLast(({ limit }) => limit <= wanted())?.trial);
}

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
  tellBudget();
}

function tellBudget() {
  const trial = fitting();
  const found = trial ? t("study.fits", { number: trial.number, accuracy: percent((trial.held_out ?? trial.judged.accuracy).value) }) : t("study.fits_none");
  slider.setAttribute("aria-valuetext", `${wantedText()}: ${found}`);
  byId("budget-value").textContent = wantedText();
  byId("budget-found").textContent = found;
  byId("budget-reset").hidden = asked === null;
}

let moving = 0;

function follow() { // once for each frame, however fast the slider is moved
  cancelAnimationFrame(moving);
  moving = requestAnimationFrame(() => {
    for (const part of [tellBudget, drawTiles, drawPanel, drawTable, moveBudget]) part();
  });
}

function ask(value) { // null: the study's own budget
  asked = value === null ? null : { axis, value };
  chosen = NaN;
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  follow();
}

slider.addEventListener("input", () => {
  const { low, high } = slider.dataset;
  ask(Number(low) + (Number(high) - Number(low)) * slider.value / STEPS);
});
byId("budget-reset").addEventListener("click", () => {
  ask(null);
  drawBudget();
  slider.focus();
});

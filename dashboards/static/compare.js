// The page that puts trials side by side, drawn from its JSON twin; what is better or worse is decided there.
"use strict";

const PLACES = [ // how the trials are drawn, in their order
  { colour: "front", symbol: "circle", glyph: "●", dash: "solid" },
  { colour: "infeasible", symbol: "square", glyph: "■", dash: "dash" },
  { colour: "good", symbol: "diamond", glyph: "◆", dash: "dot" },
  { colour: "stopped", symbol: "triangle-up", glyph: "▲", dash: "dashdot" },
];
const VERDICTS = { better: "▲", worse: "▼", same: "≈" };
const SHOWN_INDICES = 200; // positions of images that are listed
const SHOWN_PICTURES = 6; // of the images that one trial alone gets right
const AT_HAND = 512; // images that there are pictures of, the first ones of the search
const points = share => {
  const shown = Math.abs(100 * share).toFixed(1);
  return Number(shown) === 0 ? shown : `${share < 0 ? "−" : "+"}${shown}`;
};
const signedShare = (value, of) => `${points(value / of)}%`;
const NUMBERS = { // how a number is written, and how a difference is
  accuracy: { show: percent, differ: points },
  expected: { show: percent, differ: points },
  held_out: { show: percent, differ: points },
  latency_ratio: { show: percent, differ: points },
  latency_ms: { show: milliseconds, differ: signedShare },
  memory: { show: megabytes, differ: signedShare },
  macs: { show: macs, differ: signedShare },
  parameters: { show: macs, differ: signedShare },
};

const named = number => t("compare.trial", { number });

function swatch(place) {
  const node = element("span", { className: "swatch", ariaHidden: "true" }, PLACES[place].glyph);
  node.style.setProperty("--kind", `var(--${PLACES[place].colour})`);
  return node;
}

function heads(trials, first, ...more) { // the first row of a table: a trial in each column
  const column = ({ number, url }, place) =>
    element("th", { scope: "col", className: "number" }, swatch(place), element("a", { href: url }, named(number)));
  return element("thead", {}, element("tr", {}, element("th", { scope: "col" }, first),
    ...more.map(name => element("th", { scope: "col", className: "number" }, name)), ...trials.map(column)));
}

// --- numbers ---
function numberCell(name, value, against, first) {
  if (!value) return element("td", { className: "number" }, "–");
  const { show, differ } = NUMBERS[name];
  const shares = show === percent;
  const range = shares && value.low < value.high ? interval(value) : value.low < value.high ? `${show(value.low)}–${show(value.high)}` : null;
  return element("td", { className: "number" },
    element("span", { className: "value" }, `${value.mark}${show(value.value)}`), range && element("small", { className: "range" }, range),
    against && element("span", { className: `verdict ${against.verdict}`, title: t(`compare.verdicts.${against.verdict}`) },
      element("span", { ariaHidden: "true" }, VERDICTS[against.verdict]),
      element("span", { className: "unseen" }, t(`compare.verdicts.${against.verdict}`)),
      ` ${differ(against.value, first.value)}`,
      against.low < against.high && element("small", {}, ` (${differ(against.low, first.value)} … ${differ(against.high, first.value)})`)));
}

function drawNumbers({ trials, numbers }) {
  for (const table of document.querySelectorAll(".compared-table")) table.classList.toggle("many", trials.length > 2);
  byId("numbers").replaceChildren(heads(trials, t("compare.number")), element("tbody", {}, ...numbers.map(({ name, values, against }) =>
    element("tr", {}, element("th", { scope: "row" }, t(`compare.names.${name}`)),
      ...values.map((value, place) => numberCell(name, value, against[place], values[0]))))));
  const marks = new Set(numbers.flatMap(({ values }) => values.map(value => value?.mark)));
  const meanings = [marks.has("~") && `~ ${t("signs.predicted")}`, marks.has("!") && `! ${t("signs.noisy")}`,
    marks.has("†") && `† ${t("signs.estimated")}`].filter(Boolean);
  byId("compare-marks").hidden = !meanings.length;
  byId("compare-marks").textContent = meanings.join(t("compare.semicolon"));
}

// --- tokens and schedules ---
function drawTokens({ trials, depth, tokens: whole }) {
  const routed = trials.some(({ visits }) => visits);
  const runs = Math.max(depth, ...trials.map(({ tokens }) => tokens.length));
  const traces = trials.map((trial, place) => {
    const { number, tokens, visits } = trial;
    const computed = tokens.map((count, at) => count - visitAt(visits, at).resting);
    const said = (count, at) => count < tokens[at] ? visitTokens(trial, at) : t("compare.tokens_after", { count, visit: visitName(visits, at) });
    const { symbol, dash, colour: kind } = PLACES[place];
    const color = colour(kind);
    return { name: named(number), type: "scatter", mode: "lines+markers", x: tokens.map((_, at) => at + 1), y: computed,
      text: computed.map((count, at) => `${named(number)}<br>${said(count, at)}`),
      hovertemplate: "%{text}<extra></extra>", line: { color, width: 2, dash }, marker: { color, symbol, size: 8, opacity: 1, line: { width: 0 } } };
  });
  byId("tokens-legend").replaceChildren(...trials.map(({ label }, place) => element("li", {}, swatch(place), label)));
  const layout = chartLayout({ xaxis: blockAxis(runs, routed ? { title: t("compare.runs") } : {}), yaxis: { title: t("compare.tokens_axis"), range: [0, whole * 1.05], nticks: 6 } });
  return Plotly.react(byId("tokens-chart"), traces, layout, PLOT);
}

function settingText(name, value) {
  if (value === null || value === undefined) return "–";
  return name === "start" ? t("compare.block", { block: value }) : name === "last" ? t("profile.tokens", { count: value }) : `${value}`;
}

function drawSchedules({ trials, schedules }) {
  byId("schedules").replaceChildren(heads(trials, t("compare.setting")), element("tbody", {}, ...schedules.map(({ name, setting, values }) => {
    const same = values.every(value => value === values[0]);
    return element("tr", { className: same ? "same" : "" },
      element("th", { scope: "row" }, setting ? element("code", {}, name) : t(`compare.settings.${name}`)),
      ...values.map(value => element("td", { className: "number" }, settingText(name, value))));
  })));
}

// --- classes and images ---
function drawClasses({ trials, classes }) {
  byId("classes-card").hidden = !classes;
  if (!classes) return;
  byId("classes-hint").textContent = t(`compare.classes_hint.${classes.phase}`);
  const most = Math.max(...classes.rows.flatMap(({ lost }) => lost.map(share => Math.abs(share ?? 0))), 1e-9);
  const cell = (share, place) => {
    const bar = element("i", { ariaHidden: "true" });
    bar.style.setProperty("--share", Math.abs(share ?? 0) / most);
    bar.style.setProperty("--kind", `var(--${PLACES[place].colour})`);
    return element("td", { className: "number lost" }, bar, share === null ? "–" : points(-share));
  };
  byId("classes").replaceChildren(heads(trials, t("compare.class"), t("compare.images_column")), element("tbody", {},
    ...classes.rows.map(({ class: label, images, lost }) => element("tr", {}, element("th", { scope: "row" }, `${label}`),
      element("td", { className: "number" }, `${images}`), ...lost.map(cell)))));
}

function indicesOf(indices) {
  const more = indices.length > SHOWN_INDICES ? t("compare.and_more", { count: indices.length - SHOWN_INDICES }) : "";
  return element("p", { className: "hint indices" }, `${indices.slice(0, SHOWN_INDICES).join(", ")}${more}`);
}

async function drawPictures(box, { url, pictures, number }, indices) { // what a trial does to these images
  const waiting = element("p", { className: "hint" }, t("trial.pictures.waiting"));
  box.replaceChildren(element("h4", {}, named(number)), waiting);
  try {
    const response = await fetch(`${url}/images.json?indices=${indices.join(",")}`);
    const shown = await response.json();
    if (!shown.images?.length) throw new Error(shown.reason ?? shown.error);
    const boxes = pictures.map(() => element("div", { className: "drawn" }));
    waiting.replaceWith(...boxes);
    await Promise.all(pictures.map((name, at) => PICTURES[name](boxes[at], shown)));
  } catch (error) {
    waiting.textContent = t("trial.pictures.none", { reason: error.message });
  }
}

function indicesShown(indices, pair) { // opened for the first time, with pictures where there are any
  const pictured = indices.filter(index => index < AT_HAND).slice(0, SHOWN_PICTURES);
  const boxes = pictured.length ? pair.map(() => element("div", { className: "pictured" })) : [];
  const details = element("details", {}, element("summary", {}), indicesOf(indices), ...boxes);
  details.addEventListener("toggle", () => boxes.forEach((box, at) => drawPictures(box, pair[at], pictured)), { once: true });
  return details;
}

function disagreement(shared, known) {
  const { phase, trials, images, both, neither } = shared;
  const [first, other] = trials;
  const only = shared.only.map((indices, place) => ({ indices, number: trials[place] }));
  const counts = [[t("compare.both"), both], ...only.map(({ indices, number }) => [t("compare.only", { number }), indices.length]),
    [t("compare.neither"), neither]];
  const drawn = phase === "search" && "pictures" in byId("compare").dataset; // pictures are of the images that the search saw
  const pair = drawn ? trials.map(number => known.find(trial => trial.number === number)) : [];
  const side = ({ indices, number }) => {
    if (!indices.length) return null;
    const details = indicesShown(indices, pair);
    details.querySelector("summary").textContent = t("compare.only_count", { number, count: indices.length });
    return details;
  };
  return element("section", { className: "disagreement" },
    element("h3", {}, t("compare.pair", { first, other }), element("small", {}, ` ${t(`compare.phases.${phase}`, { count: images })}`)),
    element("dl", { className: "counts" }, ...counts.map(([name, count]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, `${count}`)))),
    ...only.map(side));
}

function drawImages({ images, trials }) {
  byId("images-card").hidden = !images.length;
  byId("images").replaceChildren(...images.map(shared => disagreement(shared, trials)));
}

// --- choosing ---
function choose() {
  const numbers = [...new Set([...document.getElementsByName("trial")].map(({ value }) => value).filter(Boolean))];
  if (numbers.length > 1) location.assign(`?trials=${numbers.join(",")}`);
  else byId("compare-refused").textContent = t("compare.two_different");
}

function drawComparison(twin) {
  for (const part of [drawNumbers, drawSchedules, drawClasses, drawImages]) part(twin);
  return drawTokens(twin);
}

if (byId("compare")) {
  for (const [place, label] of document.querySelectorAll(".compared").entries()) label.prepend(swatch(place));
  for (const select of document.getElementsByName("trial")) select.addEventListener("change", choose);
  followTwin(byId("compare").dataset.twin, drawComparison);
}

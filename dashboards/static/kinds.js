// How trials are told apart: by kind, with a shape and a colour each, and by where their schedules came from.
"use strict";

const KINDS = { // those with a symbol are drawn, the last one on top
  infeasible: { glyph: "❘", symbol: "line-ns-open", size: 13 },
  dominated: { glyph: "○", symbol: "circle-open", size: 8 },
  stopped: { glyph: "▽", symbol: "triangle-down-open", size: 9, opacity: 0.55 },
  backbone: { glyph: "★", symbol: "star", size: 15 },
  front: { glyph: "●", symbol: "circle", size: 10 },
  failed: { glyph: "✕" },
  running: { glyph: "…" },
  interrupted: { glyph: "‖" },
  unreadable: { glyph: "?" },
};
const LEGEND = ["front", "dominated", "stopped", "infeasible", "backbone", "failed", "running", "interrupted", "unreadable"];
const STARTS = { // of the heuristics that are tried first, what their users call them
  constant: "ToMe", decreasing: "ToMe ↘", delayed: "DSM", published: "DiffRate", learned: "DTEM", plan: t("origins.plan.name"),
};
const ORIGINS = ["backbone", "sampler", "start", ...Object.keys(STARTS)];

const kindLabel = kind => t(`kinds.${kind}.label`);
const kindMeaning = kind => t(`kinds.${kind}.meaning`);
const originText = origin => ORIGINS.includes(origin) ? t(`origins.${origin}.meaning`) : origin;

// --- what stands before a number that is no plain measurement ---
const sign = trial => trial.predicted ? "~" : trial.noisy ? "!" : "";
const signMeaning = ({ predicted, noisy }) => predicted ? t("signs.predicted") : noisy && t("signs.noisy_because", { reason: noisy });
const accuracyText = trial => `${trial.estimated_of ? "†" : ""}${percent(trial.judged.accuracy.value)}`;
const imagesText = ({ estimated_of: all, judged: { accuracy } }) => all ? t("signs.images_of", { seen: accuracy.n, all }) : `${accuracy.n}`;

function signed(trial, text) { // a latency with its sign, which explains itself
  if (!sign(trial)) return text;
  const mark = element("span", { className: trial.predicted ? "mark" : "mark noisy", title: signMeaning(trial) }, sign(trial));
  return element("span", {}, mark, text);
}

function bars({ tokens, visits }, all, labels = true) { // tokens after each block, of `all` that there are at first; pale are those that rest
  const every = Math.ceil(tokens.length / 12);
  const read = visits ? tokens.map((_, at) => visitTokens({ tokens, visits }, at)).join("; ") : tokens.join(", ");
  const box = element("div", { className: "bars", role: "img", ariaLabel: t("trials.tokens_are", { tokens: read }) });
  const bar = (count, className = "") => {
    const fill = element("i", { className });
    fill.style.setProperty("--share", count / all);
    return fill;
  };
  tokens.forEach((count, at) => {
    const { block, step, steps, resting } = visitAt(visits, at);
    const shown = labels && at % every === 0;
    const number = steps > 1 ? `${block + 1}·${step + 1}` : `${block + 1}`;
    box.append(element("div", { title: visitTokens({ tokens, visits }, at) }, shown ? `${count - resting}` : null,
      resting > 0 && bar(resting, "resting"), bar(count - resting), labels ? element("em", {}, shown ? number : "\u00a0") : null));
  });
  return box;
}

function restingHint({ visits }) { // what is pale in the bars
  return visits?.some(({ resting }) => resting) ? element("p", { className: "hint" }, t("trials.resting")) : null;
}

function fact(name, value, note) {
  return element("div", {}, element("dt", {}, name), element("dd", { className: "value" }, value), note ? element("dd", { className: "note" }, note) : null);
}

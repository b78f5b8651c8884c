// What every page is drawn with: words in the reader's language, numbers, elements and colours.
"use strict";

const WORDS = JSON.parse(document.getElementById("words").textContent);
const LANGUAGE = document.documentElement.lang;
const byId = id => document.getElementById(id);

function t(key, values = {}) { // the word of that key with its values; of two forms `count` chooses, as in words.py
  const found = key.split(".").reduce((words, part) => words[part], WORDS);
  const form = typeof found === "string" ? found : found[values.count === 1 && found.one !== undefined ? "one" : "other"];
  return form.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// --- numbers ---
const tenths = value => value.toFixed(1).replace(/^-(0\.0)$/, "$1"); // a loss of nothing has no sign
const percent = share => `${tenths(100 * share)}%`;
const milliseconds = value => `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
const macs = value => value >= 1e9 ? `${(value / 1e9).toFixed(2)} G` : `${(value / 1e6).toFixed(1)} M`;
const perSecond = value => `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} images/s`;
const megabytes = value => `${Math.round(value).toLocaleString("en")} MB`;
const interval = ({ low, high }) => `${tenths(100 * low)}–${tenths(100 * high)}`;

// --- visits of blocks: without any told every block runs once ---
const visitAt = (visits, at) => visits?.[at] ?? { block: at, step: 0, steps: 1, resting: 0 };

function visitName(visits, at) { // which block runs, within a sentence
  const { block, step, steps } = visitAt(visits, at);
  return steps > 1 ? t("visits.step", { block: block + 1, step: step + 1 }) : t("visits.block", { block: block + 1 });
}

function visitLabel(visits, at) { // the same under the word block
  const { block, step, steps } = visitAt(visits, at);
  return steps > 1 ? t("visits.short", { block: block + 1, step: step + 1 }) : `${block + 1}`;
}

function visitTokens({ tokens, visits }, at) { // and how many tokens it leaves
  const { resting } = visitAt(visits, at);
  const values = { visit: visitName(visits, at), tokens: tokens[at] - resting };
  return resting ? t("trials.block_rests", { ...values, resting }) : t("trials.block_has", values);
}

// --- addresses ---
const askingFor = (address, asked) => asked ? `${address}?${asked.name}=${encodeURIComponent(asked.value)}` : address;

// --- elements ---
const escaped = text => String(text).replace(/[&<>]/g, letter => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[letter]);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter(child => child != null && child !== false));
  return node;
}

// --- pictures ---
const PICTURES = {}; // each kind of picture by its name: draws what a document says of images into an element, (box, document)

// How deep each patch of an image goes, drawn over the image, and what the router chose by: a picture of recursion.
"use strict";

const PALE = 0.5; // that much of the picture is hidden, so that a colour on dark and on light looks alike
const COLOURED = [0.12, 0.85]; // how much colour there is at the least depth and at the greatest one
const BINS = 32;
const SHORT = 3; // significant digits of a score

function stepsOf({ visits }) { // the visit of each step in which who takes part is decided, that of the first shared block
  return visits.map((_, at) => at).filter(at => visits[at].block === 1);
}

function partOf({ blocks }, at) { // of an image's patches: the token that each is in a visit, or that it was dropped or rests
  return blocks[at].places;
}

function depthsOf(image, steps) { // of every patch; -1 where it was dropped before the first step
  const parts = steps.map(at => partOf(image, at));
  return parts[0].map((place, patch) => place === -1 ? -1 : parts.filter(part => part[patch] >= 0).length);
}

const strength = (depth, steps) => COLOURED[0] + (COLOURED[1] - COLOURED[0]) * (steps > 1 ? (depth - 1) / (steps - 1) : 1);

function paintDepths({ canvas, picture, places }, colours) { // how much colour each patch has; hatched are those that are null
  const { context, scale, unit } = paintImage(canvas, picture);
  const [veil, deep, gone] = [colour("card"), colour("front"), hatch(context, unit)];
  placesShown(places, scale).forEach(({ left, top, right, bottom }, patch) => {
    const fill = (fillStyle, globalAlpha) => {
      Object.assign(context, { fillStyle, globalAlpha });
      context.fillRect(left, top, right - left, bottom - top);
    };
    if (colours[patch] === null) fill(gone, 1);
    else fill(veil, PALE);
    if (colours[patch]) fill(deep, colours[patch]);
  });
  context.globalAlpha = 1;
}

function countsText(depths) { // 30 in 5, 20 in 3
  const found = [...new Set(depths)].filter(depth => depth >= 0).sort((one, other) => other - one);
  return found.map(steps => t("pictures.recursion.depth_of", { steps, count: depths.filter(depth => depth === steps).length })).join(", ");
}

function depthScale(steps, gone) { // one swatch for each depth
  const swatches = Array.from({ length: steps }, (_, at) => {
    const node = element("span", {}, element("i", { ariaHidden: "true" }), `${at + 1}`);
    node.style.setProperty("--share", strength(at + 1, steps));
    return node;
  });
  const dropped = gone && element("span", {}, element("i", { className: "gone", ariaHidden: "true" }), t("pictures.recursion.gone"));
  return element("p", { className: "depths hint" }, t("pictures.recursion.scale"), ...swatches, dropped);
}

function scoresOf(images, at) { // of all images in a visit, the scores of those that go on and of those that rest; null where nothing was chosen
  const told = images.map(({ blocks }) => blocks[at].told.recursion).filter(Boolean);
  if (!told.length) return null;
  const both = [[], []];
  for (const { scores, chosen } of told) unpacked(chosen).values.forEach((on, place) => both[on ? 0 : 1].push(scores[place]));
  return both;
}

function histogram([on, off], label) { // stacked, from the lowest score to the highest
  const all = [...on, ...off];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const bin = score => Math.min(BINS - 1, Math.floor(BINS * (score - low) / (high - low || 1)));
  const counts = [on, off].map(scores => scores.reduce((bins, score) => { bins[bin(score)] += 1; return bins; }, Array(BINS).fill(0)));
  const most = Math.max(...counts[0].map((count, at) => count + counts[1][at]));
  const fill = (count, className) => {
    const node = element("i", { className });
    node.style.setProperty("--share", count / most);
    return node;
  };
  return element("div", { className: "bins", role: "img", ariaLabel: label },
    ...counts[0].map((count, at) => element("div", {}, fill(counts[1][at], "resting"), fill(count, ""))));
}

const median = values => [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)];
const short = value => Number(value.toPrecision(SHORT)).toString().replace("-", "−");

function scoresRow(shown, steps, place) {
  const both = scoresOf(shown.images, steps[place]);
  const name = element("th", { scope: "row" }, t("pictures.recursion.row", { step: place + 1 }));
  if (!both) {
    const { resting } = shown.visits[steps[place]];
    return element("tr", {}, name, element("td", { colSpan: 2 }, t(`pictures.recursion.${resting ? "same" : "everyone"}`)));
  }
  const [low, high] = [Math.min(...both.flat()), Math.max(...both.flat())].map(short);
  const [count, others] = both.map(one => one.length / shown.images.length);
  const label = t("pictures.recursion.histogram", { step: place + 1, low, high, on: short(median(both[0])), off: short(median(both[1])) });
  return element("tr", {}, name,
    element("td", {}, histogram(both, label), element("div", { className: "ends hint", ariaHidden: "true" }, element("span", {}, low), element("span", {}, high))),
    element("td", { className: "number" }, t("pictures.recursion.row_is", { count, whole: count + others })));
}

function scoresPart(shown, steps) { // histograms by step, or why there are none
  const rule = steps.map(at => shown.visits[at].rules.recursion).find(one => one !== "all") ?? "all";
  const said = rule === "all" || rule === "random" ? t(`pictures.recursion.${rule}`) : t(`pictures.recursion.scores_of.${rule}`);
  const title = [element("h3", {}, t("pictures.recursion.scores")), element("p", { className: "hint" }, said)];
  if (rule === "all" || rule === "random") return title;
  const key = (className, text) => element("span", {}, element("i", { className, ariaHidden: "true" }), text);
  return [...title, element("p", { className: "depths hint" }, key("on", t("pictures.recursion.go_on")), key("off", t("pictures.recursion.rest"))),
    element("table", { className: "scores" }, element("tbody", {}, ...steps.map((_, place) => scoresRow(shown, steps, place))))];
}

PICTURES.recursion = async (box, shown) => {
  const [steps, [rows, columns]] = [stepsOf(shown), shown.grid];
  const figures = await Promise.all(shown.images.map(async image => {
    const frame = await imageFrame(shown, image);
    frame.canvas.setAttribute("role", "img");
    return { ...frame, image, depths: depthsOf(image, steps) };
  }));
  const range = element("input", { type: "range", min: 0, max: steps.length, value: 0, ariaLabel: t("pictures.recursion.slider") });
  const text = element("output", { className: "number" });
  const scale = depthScale(steps.length, figures.some(({ depths }) => depths.includes(-1)));
  const counted = (image, step) => ({ index: image.index, step, whole: rows * columns, count: partOf(image, steps[step - 1]).filter(place => place >= 0).length });
  const stepText = step => {
    const at = steps[step - 1];
    const entering = shown.tokens[at - 1] - shown.prefix; // of the first block there is always a visit before
    return t("pictures.recursion.step", { step, steps: steps.length, whole: entering, count: entering - shown.visits[at].resting });
  };
  const draw = () => {
    const step = Number(range.value);
    text.textContent = step ? stepText(step) : t("pictures.recursion.depth", { steps: steps.length });
    range.setAttribute("aria-valuetext", text.textContent);
    for (const figure of figures) {
      const { canvas, image, depths } = figure;
      const taking = step ? partOf(image, steps[step - 1]).map(place => place >= 0 ? step : place === RESTS ? 0 : -1) : depths;
      paintDepths(figure, taking.map(depth => depth > 0 ? strength(depth, steps.length) : depth ? null : 0));
      canvas.setAttribute("aria-label", step ? t("pictures.recursion.canvas_step", counted(image, step))
        : t("pictures.recursion.canvas", { index: image.index, depths: countsText(depths) }));
    }
  };
  range.addEventListener("input", draw);
  const images = element("div", { className: "images" }, ...figures.map(({ canvas, image }) => element("figure", {}, canvas, imageCaption(image))));
  box.replaceChildren(element("div", { className: "blockbar" }, range, text), scale, images, ...scoresPart(shown, steps));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(images);
  draw();
};

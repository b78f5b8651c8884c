// Which patches of an image belong together after each block, drawn over the image: a picture of merging and pruning.
"use strict";

const LEFT_ALONE = 0.5; // the first block shown is the first that leaves no more than this share of the patches
const STEP_MS = 700; // between blocks while it plays
const TINY = 100; // pixels; a smaller picture is scaled up with hard edges

function patchPlaces({ grid: [rows, columns], patch: [high, wide] }, { width, height }) { // of every patch, as far as the picture goes
  return Array.from({ length: rows * columns }, (_, at) => {
    const [top, left] = [Math.floor(at / columns) * high, at % columns * wide];
    return { left: Math.min(left, width), top: Math.min(top, height), right: Math.min(left + wide, width), bottom: Math.min(top + high, height) };
  });
}

function patchSums(picture, places) { // red, green, blue and pixels of every patch
  const canvas = element("canvas", { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  return places.map(({ left, top, right, bottom }) => {
    const sums = [0, 0, 0, 0];
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        for (let channel = 0; channel < 3; channel += 1) sums[channel] += data[4 * (y * picture.width + x) + channel];
        sums[3] += 1;
      }
    }
    return sums;
  });
}

function groupColours(groups, sums) { // the mean colour of each group of several patches, by its number
  const found = new Map();
  groups.forEach((group, at) => {
    const one = found.get(group) ?? { sums: [0, 0, 0, 0], patches: 0 };
    found.set(group, { sums: one.sums.map((sum, channel) => sum + sums[at][channel]), patches: one.patches + 1 });
  });
  const several = [...found].filter(([group, { patches }]) => group >= 0 && patches > 1);
  return new Map(several.map(([group, { sums: [red, green, blue, n] }]) => [group, `rgb(${[red, green, blue].map(sum => Math.round(sum / n)).join(" ")})`]));
}

function hatch(context, unit) { // the fill of patches that are gone
  const size = 6 * unit;
  const tile = element("canvas", { width: size, height: size });
  const pen = tile.getContext("2d");
  pen.fillStyle = colour("gone");
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = colour("gone-line");
  pen.lineWidth = unit;
  for (const shift of [-size, 0, size]) {
    pen.beginPath();
    pen.moveTo(shift, size);
    pen.lineTo(shift + size, 0);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

function paintPatches(canvas, { picture, places, sums, image, grid: [, columns] }, block) {
  const unit = Math.max(1, Math.round(devicePixelRatio));
  const wide = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const scale = wide / picture.width;
  Object.assign(canvas, { width: wide, height: Math.round(picture.height * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = picture.width >= TINY;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (block === 0) return;
  const { groups } = image.blocks[Math.min(block, image.blocks.length) - 1];
  const at = place => Object.fromEntries(Object.entries(place).map(([side, value]) => [side, Math.round(value * scale)]));
  const drawn = places.map(at);
  const colours = groupColours(groups, sums);
  const gone = hatch(context, unit);
  drawn.forEach(({ left, top, right, bottom }, patch) => {
    const fill = groups[patch] < 0 ? gone : colours.get(groups[patch]);
    if (!fill) return;
    context.fillStyle = fill;
    context.fillRect(left, top, right - left, bottom - top);
  });
  const borders = new Path2D();
  drawn.forEach(({ left, top, right, bottom }, patch) => {
    if ((patch + 1) % columns && groups[patch + 1] !== groups[patch]) { borders.moveTo(right, top); borders.lineTo(right, bottom); }
    if (groups[patch + columns] !== undefined && groups[patch + columns] !== groups[patch]) { borders.moveTo(left, bottom); borders.lineTo(right, bottom); }
  });
  for (const [style, width] of [["rgb(0 0 0 / 55%)", 3 * unit], ["#fff", unit]]) { // seen on dark and on light pictures
    Object.assign(context, { strokeStyle: style, lineWidth: width, lineCap: "square" });
    context.stroke(borders);
  }
}

function patchesText({ tokens, whole, blocks }, block) {
  if (block === 0) return t("trial.patches.original", { count: whole });
  const text = t("trial.patches.after", { block, blocks: tokens.length, count: tokens[block - 1], whole });
  return block > blocks ? `${text} ${t("trial.patches.tail")}` : text;
}

function canvasText(image, block) {
  if (block === 0) return t("trial.patches.image", { index: image.index });
  const { groups, sizes } = image.blocks[Math.min(block, image.blocks.length) - 1];
  return t("trial.patches.canvas", { index: image.index, block, count: sizes.length, gone: groups.filter(group => group < 0).length });
}

function patchesCaption({ index, label, backbone, schedule, agree }) {
  const answers = agree ? t("trial.patches.agree", { answer: schedule }) : t("trial.patches.differ", { backbone, schedule });
  return element("figcaption", {}, element("b", {}, t("trial.patches.image", { index })),
    label === null ? null : ` ${t("trial.patches.label", { label })}`, element("br"),
    element("span", { className: agree ? "" : "differs" }, `${agree ? "✓" : "✕"} ${answers}`));
}

PICTURES.patches = async (box, shown) => {
  const half = shown.tokens.findIndex(count => count - shown.prefix <= LEFT_ALONE * (shown.whole - shown.prefix));
  const first = Math.min(half < 0 ? shown.tokens.length : half + 1, Math.max(1, shown.blocks));
  const range = element("input", { type: "range", min: 0, max: shown.tokens.length, value: first, ariaLabel: t("trial.patches.slider") });
  const play = element("button", { type: "button", className: "small" }, t("trial.patches.play"));
  const text = element("output", { className: "number" });
  const figures = await Promise.all(shown.images.map(async image => {
    const picture = element("img", { src: image.picture });
    await picture.decode();
    const places = patchPlaces(shown, picture);
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.style.setProperty("aspect-ratio", `${picture.width} / ${picture.height}`);
    return { canvas, picture, places, sums: patchSums(picture, places), image, grid: shown.grid };
  }));
  const draw = () => {
    const block = Number(range.value);
    text.textContent = patchesText(shown, block);
    range.setAttribute("aria-valuetext", text.textContent);
    for (const figure of figures) {
      paintPatches(figure.canvas, figure, block);
      figure.canvas.setAttribute("aria-label", canvasText(figure.image, block));
    }
  };
  let playing = null;
  const stop = () => {
    clearInterval(playing);
    playing = null;
    play.textContent = t("trial.patches.play");
  };
  play.addEventListener("click", () => {
    if (playing) { stop(); return; }
    if (range.value === range.max) range.value = 0;
    play.textContent = t("trial.patches.pause");
    playing = setInterval(() => {
      range.value = Number(range.value) + 1;
      draw();
      if (range.value === range.max || !box.isConnected) stop();
    }, STEP_MS);
  });
  range.addEventListener("input", () => { stop(); draw(); });
  const images = element("div", { className: "images" },
    ...figures.map(({ canvas, image }) => element("figure", {}, canvas, patchesCaption(image))));
  box.replaceChildren(element("div", { className: "blockbar" }, play, range, text), images);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(images);
  draw();
};

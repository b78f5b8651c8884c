// Which patches of an image belong together after each block, drawn over the image: a picture of merging and pruning.
"use strict";

const LEFT_ALONE = 0.5; // the first block shown is the first that leaves no more than this share of the patches
const STEP_MS = 700; // between blocks while it plays

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

function paintPatches(canvas, { picture, places, sums, image, grid: [, columns] }, block) {
  const { context, scale, unit } = paintImage(canvas, picture);
  if (block === 0) return;
  const { groups } = image.blocks[Math.min(block, image.blocks.length) - 1];
  const drawn = placesShown(places, scale);
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
  strokeSeen(context, borders, unit);
}

function patchesText({ tokens, whole, blocks, visits }, block) {
  if (block === 0) return t("trial.patches.original", { count: whole });
  const routed = visits?.some((one, at) => one.block !== at);
  const visit = routed ? visitName(visits, block - 1) : t("visits.of", { block, blocks: tokens.length });
  const text = t("trial.patches.after", { visit, count: tokens[block - 1], whole });
  return block > blocks ? `${text} ${t("trial.patches.tail")}` : text;
}

function canvasText(image, block, visits) {
  if (block === 0) return t("trial.patches.image", { index: image.index });
  const { groups, sizes } = image.blocks[Math.min(block, image.blocks.length) - 1];
  return t("trial.patches.canvas", { index: image.index, visit: visitName(visits, block - 1), count: sizes.length, gone: groups.filter(group => group < 0).length });
}

PICTURES.patches = async (box, shown) => {
  const half = shown.tokens.findIndex(count => count - shown.prefix <= LEFT_ALONE * (shown.whole - shown.prefix));
  const first = Math.min(half < 0 ? shown.tokens.length : half + 1, Math.max(1, shown.blocks));
  const range = element("input", { type: "range", min: 0, max: shown.tokens.length, value: first, ariaLabel: t("trial.patches.slider") });
  const play = element("button", { type: "button", className: "small" }, t("trial.patches.play"));
  const text = element("output", { className: "number" });
  const figures = await Promise.all(shown.images.map(async image => {
    const { canvas, picture, places } = await imageFrame(shown, image);
    canvas.setAttribute("role", "img");
    return { canvas, picture, places, sums: patchSums(picture, places), image, grid: shown.grid };
  }));
  const draw = () => {
    const block = Number(range.value);
    text.textContent = patchesText(shown, block);
    range.setAttribute("aria-valuetext", text.textContent);
    for (const figure of figures) {
      paintPatches(figure.canvas, figure, block);
      figure.canvas.setAttribute("aria-label", canvasText(figure.image, block, shown.visits));
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
    ...figures.map(({ canvas, image }) => element("figure", {}, canvas, imageCaption(image))));
  box.replaceChildren(element("div", { className: "blockbar" }, play, range, text), images);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(images);
  draw();
};

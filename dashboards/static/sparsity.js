// Which keys a patch of an image reads in a block and head, and how strongly, drawn over the image: a picture of sparsity.
"use strict";

const FINEST = 255; // a byte of w is a share of (w / 255)^2
const VEIL = { read: 0.45, unread: 0.8 }; // that much of the picture is hidden, so that heat on dark and on light looks alike
const HEAT = [0.06, 0.85]; // of the weakest key and of the strongest one
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }; // in rows and columns

function part({ shape, values }, ...indices) { // of an array, what is at these indices of its first axes
  const size = shape.slice(indices.length).reduce((product, length) => product * length, 1);
  const at = indices.reduce((place, index, axis) => place * shape[axis] + index, 0);
  return values.subarray(at * size, (at + 1) * size);
}

function readings({ blocks }) { // of an image, by block: what `reading` needs, made when it is first asked for
  const found = new Map();
  return block => {
    if (!found.has(block)) {
      const { places, told: { sparsity } } = blocks[block];
      const [asked, positions, weights] = [sparsity.asked, sparsity.positions, sparsity.weights].map(unpacked);
      found.set(block, { ...sparsity, places, asked: [...asked.values], positions, weights });
    }
    return found.get(block);
  };
}

function reading({ places, asked, positions, weights }, [, columns], head, patch) { // of the nearest patch that is told
  if (places[patch] < 0) return null;
  const far = at => (Math.floor(at / columns) - Math.floor(patch / columns)) ** 2 + (at % columns - patch % columns) ** 2;
  const told = places.map((place, at) => [asked.indexOf(place), at]).filter(([place]) => place >= 0);
  const own = asked.indexOf(places[patch]);
  const [place, nearest] = own >= 0 ? [own, patch] : told.reduce((best, one) => far(one[1]) < far(best[1]) ? one : best);
  const keys = positions.shape.length === 3 ? part(positions, head, place) : part(positions, head);
  const shares = [...part(weights, head, place)].map(weight => (weight / FINEST) ** 2);
  const paid = new Map([...keys].map((key, at) => [key, shares[at]]));
  return { patch: nearest, read: places.map(one => paid.get(one) ?? null), count: keys.length, whole: Math.max(...places) + 1,
    share: shares.reduce((sum, one) => sum + one, 0), most: Math.max(...shares) };
}

function paintReading({ canvas, picture, places, grid: [, columns] }, { places: tokens }, { patch, read, most }) {
  const { context, scale, unit } = paintImage(canvas, picture);
  const [veil, heat, gone] = [colour("card"), colour("infeasible"), hatch(context, unit)];
  const own = new Path2D();
  const same = at => at === patch || (at >= 0 && tokens[at] >= 0 && tokens[at] === tokens[patch]);
  placesShown(places, scale).forEach(({ left, top, right, bottom }, at) => {
    const share = read?.[at] ?? null;
    const fill = (fillStyle, globalAlpha) => {
      Object.assign(context, { fillStyle, globalAlpha });
      context.fillRect(left, top, right - left, bottom - top);
    };
    if (tokens[at] < 0) fill(tokens[at] === RESTS ? veil : gone, 1);
    else fill(veil, share === null ? VEIL.unread : VEIL.read);
    if (share !== null) fill(heat, HEAT[0] + (HEAT[1] - HEAT[0]) * (most > 0 ? Math.sqrt(share / most) : 0));
    if (!same(at)) return;
    if (at % columns === 0 || !same(at - 1)) { own.moveTo(left, top); own.lineTo(left, bottom); }
    if ((at + 1) % columns === 0 || !same(at + 1)) { own.moveTo(right, top); own.lineTo(right, bottom); }
    if (!same(at - columns)) { own.moveTo(left, top); own.lineTo(right, top); }
    if (!same(at + columns)) { own.moveTo(left, bottom); own.lineTo(right, bottom); }
  });
  context.globalAlpha = 1;
  strokeSeen(context, own, 2 * unit);
}

function readingText(found, { places }, [, columns], patch) {
  const where = at => ({ row: Math.floor(at / columns) + 1, column: at % columns + 1 });
  if (!found) return t(places[patch] === RESTS ? "pictures.sparsity.rests" : "pictures.sparsity.gone", where(patch));
  const { row, column } = where(found.read.indexOf(found.most));
  return t("pictures.sparsity.reads", { ...where(found.patch), share: percent(found.share), count: found.count, whole: found.whole,
    most: percent(found.most), most_row: row, most_column: column });
}

const meanOf = values => values.reduce((sum, value) => sum + value, 0) / values.length;

function driftTable({ drift, visits }, block) { // how much of what matters is read, in a block and in all, as images get worse
  const known = values => values.filter(value => value !== null);
  const columns = [["recall", true], ["mass", true], ["recall", false], ["mass", false]];
  const at = ({ measured: { sparsity } }, [name, one]) => one ? sparsity[name][block] : meanOf(known(sparsity[name]));
  const cell = (one, column) => {
    const [value, first] = [at(one, column), at(drift[0], column)];
    const change = Math.round(1000 * (value - first)) / 10;
    return element("td", { className: "number" }, percent(value),
      one !== drift[0] && element("small", {}, `${change < 0 ? "−" : change > 0 ? "+" : "±"}${Math.abs(change).toFixed(1)}`));
  };
  const named = ({ kind, strength }) => kind ? t(`pictures.sparsity.corrupted.${kind}`, { strength: `${Math.round(100 * strength)}%` }) : t("pictures.sparsity.as_they_are");
  const heads = columns.map(([name, one]) => t(`pictures.sparsity.${one ? "in_block" : "in_all"}`, { name: t(`pictures.sparsity.${name}`), block: visitLabel(visits, block) }));
  return element("table", { className: "drift" },
    element("thead", {}, element("tr", {}, ...[t("pictures.sparsity.images"), ...heads].map((text, place) =>
      element("th", { scope: "col", className: place ? "number" : "" }, text)))),
    element("tbody", {}, ...drift.map(one => element("tr", {}, element("th", { scope: "row" }, named(one)), ...columns.map(column => cell(one, column))))));
}

function headsTable(shown, blocks, mean) { // recall and mass of every block and head
  const heads = [...shown.images[0].blocks[blocks[0]].told.sparsity.recall.keys()];
  const both = (block, head) => ["recall", "mass"].map(name => Math.round(100 * mean(name, block, head))).join(" · ");
  return element("table", { className: "heads" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, t("pictures.sparsity.block")),
      ...heads.map(head => element("th", { scope: "col", className: "number" }, t("pictures.sparsity.head_of", { head: head + 1 }))))),
    element("tbody", {}, ...blocks.map(block => element("tr", {}, element("th", { scope: "row" }, visitLabel(shown.visits, block)),
      ...heads.map(head => element("td", { className: "number" }, both(block, head)))))));
}

PICTURES.sparsity = async (box, shown) => {
  const acts = ({ told }) => "sparsity" in told;
  const blocks = [...shown.images[0].blocks.keys()].filter(block => acts(shown.images[0].blocks[block]));
  if (!blocks.length) {
    box.replaceChildren(element("p", {}, t("pictures.sparsity.none")));
    return;
  }
  const [rows, columns] = shown.grid;
  const figures = await Promise.all(shown.images.map(async image => {
    const frame = await imageFrame(shown, image);
    return { ...frame, image, grid: shown.grid, at: readings(image), patch: Math.floor(rows / 2) * columns + Math.floor(columns / 2),
      text: element("span", { className: "reads" }) };
  }));
  const mean = (name, block, head) => meanOf(shown.images.map(one => one.blocks[block].told.sparsity[name][head]));
  const recalls = shown.images[0].blocks[blocks[0]].told.sparsity.recall;
  const [blockPicker, block] = picker(t("pictures.sparsity.block"), blocks.map(one => [one, visitLabel(shown.visits, one)]));
  const [headPicker, head] = picker(t("pictures.sparsity.head"), recalls.map((_, one) => [one, `${one + 1}`]));
  const numbers = element("dl", { className: "rates" });
  const fewer = element("p", { className: "hint" });
  block.value = blocks[Math.floor(blocks.length / 2)];
  const drifting = element("div", { className: "sideways", role: "group", tabIndex: 0, ariaLabel: t("pictures.sparsity.drift") });

  const drawOne = figure => {
    const told = figure.at(Number(block.value));
    const found = reading(told, shown.grid, Number(head.value), figure.patch);
    paintReading(figure, told, found ?? { patch: figure.patch });
    figure.text.textContent = readingText(found, told, shown.grid, figure.patch);
    figure.canvas.setAttribute("aria-valuenow", figure.patch + 1);
    figure.canvas.setAttribute("aria-valuetext", figure.text.textContent);
  };
  const draw = () => figures.forEach(drawOne);
  const turn = () => { // to another block or head
    const [b, h] = [Number(block.value), Number(head.value)];
    const { asked, places } = figures[0].at(b);
    const { count, whole } = reading(figures[0].at(b), shown.grid, h, places.findIndex(place => place >= 0));
    numbers.replaceChildren(...[["recall", { count, chance: percent(count / whole) }], ["mass", {}]].map(([name, values]) =>
      element("div", {}, element("dt", {}, t(`pictures.sparsity.${name}`)), element("dd", {}, percent(mean(name, b, h))),
        element("dd", { className: "hint" }, t(`pictures.sparsity.${name}_is`, values)))));
    fewer.hidden = asked.length === whole;
    fewer.textContent = t("pictures.sparsity.fewer", { count: asked.length, whole });
    drifting.replaceChildren(driftTable(shown, b));
    draw();
  };
  const move = (figure, patch) => {
    if (patch === figure.patch) return;
    figure.patch = patch;
    drawOne(figure);
  };
  const point = (figure, { offsetX: x, offsetY: y }) => {
    const scale = figure.picture.width / figure.canvas.clientWidth;
    const inside = ({ left, top, right, bottom }) => left <= x * scale && x * scale < right && top <= y * scale && y * scale < bottom;
    const patch = figure.places.findIndex(inside);
    if (patch >= 0) move(figure, patch);
  };
  const step = (figure, event) => {
    const [down, across] = ARROWS[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    const [row, column] = [Math.floor(figure.patch / columns) + down, figure.patch % columns + across];
    if (row >= 0 && row < rows && column >= 0 && column < columns) move(figure, row * columns + column);
  };
  for (const figure of figures) {
    const about = { role: "slider", tabindex: 0, "aria-valuemin": 1, "aria-valuemax": rows * columns, "aria-label": t("pictures.sparsity.patch", { index: figure.image.index }) };
    for (const [name, value] of Object.entries(about)) figure.canvas.setAttribute(name, value);
    for (const name of ["pointermove", "pointerdown"]) figure.canvas.addEventListener(name, event => point(figure, event));
    figure.canvas.addEventListener("keydown", event => step(figure, event));
  }
  for (const select of [block, head]) select.addEventListener("change", turn);
  const images = element("div", { className: "images reading" }, ...figures.map(({ canvas, image, text }) =>
    element("figure", {}, canvas, imageCaption(image, element("br"), text))));
  const scale = element("p", { className: "heat hint" }, element("i", { ariaHidden: "true" }), t("pictures.sparsity.scale"));
  const all = element("details", {}, element("summary", {}, t("pictures.sparsity.every")), element("p", { className: "hint" }, t("pictures.sparsity.every_is")),
    element("div", { className: "sideways", role: "group", tabIndex: 0, ariaLabel: t("pictures.sparsity.every") }, headsTable(shown, blocks, mean)));
  box.replaceChildren(element("div", { className: "blockbar" }, blockPicker, headPicker), numbers, scale, fewer, images,
    element("h3", {}, t("pictures.sparsity.drift")), element("p", { className: "hint" }, t("pictures.sparsity.drift_is")), drifting, all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(images);
  turn();
};

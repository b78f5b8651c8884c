// Images of a study and their patches on a canvas: what every picture of what a schedule does to images is drawn with.
"use strict";

const RESTS = -2; // in place of a token, of a patch that takes no part in a block; -1 is one that was dropped before
const TINY = 100; // pixels; a smaller picture is scaled up with hard edges

function unpacked({ type, shape, data }) {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  return { shape, values: type === "int16" ? new Int16Array(bytes.buffer) : bytes };
}

function picker(name, options) { // with its label
  const select = element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
  return [element("label", { className: "choice" }, name, select), select];
}

async function imageFrame(shown, image) { // the picture of an image, a canvas for it, and the places of its patches in it
  const picture = element("img", { src: image.picture });
  await picture.decode();
  const canvas = element("canvas");
  canvas.style.setProperty("aspect-ratio", `${picture.width} / ${picture.height}`);
  return { canvas, picture, places: patchPlaces(shown, picture) };
}

function patchPlaces({ grid: [rows, columns], patch: [high, wide] }, { width, height }) { // of every patch, as far as the picture goes
  return Array.from({ length: rows * columns }, (_, at) => {
    const [top, left] = [Math.floor(at / columns) * high, at % columns * wide];
    return { left: Math.min(left, width), top: Math.min(top, height), right: Math.min(left + wide, width), bottom: Math.min(top + high, height) };
  });
}

function placesShown(places, scale) { // the same on a canvas that is so many times as large
  const at = place => Object.fromEntries(Object.entries(place).map(([side, value]) => [side, Math.round(value * scale)]));
  return places.map(at);
}

function paintImage(canvas, picture) { // the picture as fine as the screen; `unit` is a line's width
  const unit = Math.max(1, Math.round(devicePixelRatio));
  const wide = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const scale = wide / picture.width;
  Object.assign(canvas, { width: wide, height: Math.round(picture.height * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = picture.width >= TINY;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return { context, scale, unit };
}

function strokeSeen(context, path, unit) { // on dark and on light pictures
  for (const [style, width] of [["rgb(0 0 0 / 55%)", 3 * unit], ["#fff", unit]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: width, lineCap: "square" });
    context.stroke(path);
  }
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

function imageCaption({ index, label, backbone, schedule, agree }, ...more) {
  const answers = agree ? t("trial.patches.agree", { answer: schedule }) : t("trial.patches.differ", { backbone, schedule });
  return element("figcaption", {}, element("b", {}, t("trial.patches.image", { index })),
    label === null ? null : ` ${t("trial.patches.label", { label })}`, element("br"),
    element("span", { className: agree ? "" : "differs" }, `${agree ? "✓" : "✕"} ${answers}`), ...more);
}

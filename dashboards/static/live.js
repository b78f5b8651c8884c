// What a page shows stays as it is now: it is told of changes by a stream of events, or asks again and again where there is none.
"use strict";

const POLL_MS = 2000; // between two questions, where nothing tells of changes
const BATCH_MS = 500; // between two drawings; what changes meanwhile is drawn together
let pressed = false; // plotly loses a click when the data change under it

addEventListener("pointerdown", ({ button }) => { pressed = button === 0; }, true);
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => { pressed = false; }, true);

// Show what is at an address, and again whenever it is another. `show` gets its text, and may return a promise.
// A report has the text in it already, and it is shown once.
function watch(url, events, show) {
  const inlined = byId("twin");
  if (inlined) return void show(inlined.textContent);
  let [etag, shown, wanted, drawn] = ["", "", 0, -Infinity]; // `wanted`: the revision that a stream has told of
  let [source, timer, reading, missed] = [null, 0, false, false];

  function soon(wait) { // the first of several
    timer ||= setTimeout(() => { timer = 0; read(); }, wait);
  }
  const batched = () => soon(pressed ? BATCH_MS : Math.max(0, drawn + BATCH_MS - performance.now()));
  const told = () => source?.readyState === EventSource.OPEN;
  const older = () => Number.parseInt(etag.slice(3), 10) < wanted; // a large study is made anew only so often

  async function take(response) {
    const text = await response.text();
    if (pressed) return void batched();
    if (text !== shown) await show(text);
    [etag, shown, drawn] = [response.headers.get("ETag") ?? "", text, performance.now()];
  }

  async function read() {
    if (document.hidden) return;
    if (reading) return void (missed = true); // what is on its way may be from before
    if (pressed) return batched();
    [reading, missed] = [true, false];
    let answered = true;
    try {
      const response = await fetch(url, etag ? { headers: { "If-None-Match": etag } } : {});
      if (response.ok) await take(response);
      else if (response.status !== 304) throw new Error(`${response.status} ${response.statusText}`);
    } catch (error) {
      console.warn(error);
      answered = false;
    }
    reading = false;
    if (byId("notice")) byId("notice").hidden = answered;
    if (missed) batched();
    else if (!answered || !told() || older()) soon(POLL_MS);
  }

  function listen() {
    source = new EventSource(events);
    source.onmessage = ({ data }) => { wanted = Number(data); if (!etag || older()) batched(); };
    source.onerror = () => soon(POLL_MS); // the browser connects again by itself, unless it was refused
  }
  function rest() {
    source?.close();
    clearTimeout(timer);
    [source, timer] = [null, 0];
  }
  function wake() {
    if (document.hidden) return rest();
    if (!source) listen();
    return read();
  }
  document.addEventListener("visibilitychange", wake);
  addEventListener("pagehide", rest);
  addEventListener("pageshow", ({ persisted }) => persisted && wake());
  wake();
}

// --- the files that schedules are exported as ---
const FILES = JSON.parse(byId("files")?.textContent ?? "null"); // in a report, by trial
let made = { text: null, href: null }; // the last one

function rewritten(text, { name, value }, recommended) { // what a file is for, as the server says it
  const told = name === "budget" ? /^budget: .*$/m : /^(tolerance|max_accuracy_drop): .*$/m;
  return text.replace(told, `${name}: ${value}`).replace(/^recommended: .*$/m, `recommended: ${recommended}`);
}

// What a link to a trial's file needs; null where it is not to be had here. Where nothing is asked it is for what the study is.
function exported({ number, export: address }, asked = null, recommended = false) {
  if (!address || !FILES) return address && { href: askingFor(address, asked), download: "" };
  const file = FILES[number];
  if (!file) return null;
  const text = asked ? rewritten(file.text, asked, recommended) : file.text;
  if (made.text !== text) {
    URL.revokeObjectURL(made.href);
    made = { text, href: URL.createObjectURL(new Blob([text], { type: "application/yaml" })) };
  }
  return { href: made.href, download: file.name };
}

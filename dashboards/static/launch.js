// The launch page's form: says what is wrong beside each field, sends the search, and goes to its study once it is there.
"use strict";

const form = byId("launch");
const MINUTE = 60;
const NUMBERS = ["trials", "batch_size", "workers", "seed", "time_limit", "image_passes"];
const ACCEPTED = {
  name: value => /^[\p{L}\p{N}_][\p{L}\p{N}_ .+-]{0,99}$/u.test(value) && !/\.(json|yaml)$/.test(value),
  latency_budget: value => /^\s*(p95\s+)?(\d+(\.\d+)?|\.\d+)\s*(ms(\s+p95)?|%|(images|img)\/s)\s*$/.test(value)
    && !/p95.*(p95|%|\/s)/.test(value) && parseFloat(value.replace("p95", "")) > 0,
  tolerance: value => isPoints(value),
  max_accuracy_drop: value => value.trim() === "" || isPoints(value),
};
const isPoints = value => /^\s*(\d+(\.\d+)?|\.\d+)\s*%?\s*$/.test(value) && parseFloat(value) <= 100;

function mistake(input) { // in words; null where there is none
  if (input.name in ACCEPTED) return ACCEPTED[input.name](input.value) ? null : t(`service.wrong.${input.name}`);
  return input.validity.valid ? null : t("service.wrong_number", { least: input.min, most: input.max });
}

function mark(name, told) {
  const place = byId(`${name}-wrong`);
  place.hidden = !told;
  place.textContent = told ?? "";
  for (const input of document.getElementsByName(name)) input.setAttribute("aria-invalid", `${Boolean(told)}`);
}

function mistakes() { // names of the fields that are wrong, each with its line shown
  const found = [...Object.keys(ACCEPTED), ...NUMBERS].filter(name => {
    const told = mistake(form.elements[name]);
    mark(name, told);
    return told;
  });
  const none = chosenReductions().length === 0;
  mark("reductions", none ? t("service.wrong.reductions") : null);
  return none ? [...found, "reductions"] : found;
}

const chosenReductions = () => [...document.getElementsByName("reductions")].filter(box => box.checked).map(box => box.value);

function asked() {
  const number = name => form.elements[name].value === "" ? null : Number(form.elements[name].value);
  const minutes = number("time_limit");
  return {
    ...Object.fromEntries(["name", "latency_budget", "model", "data", "device", "dtype"].map(name => [name, form.elements[name].value])),
    ...Object.fromEntries(NUMBERS.map(name => [name, number(name)])),
    tolerance: form.elements.tolerance.value, max_accuracy_drop: form.elements.max_accuracy_drop.value.trim() || null,
    time_limit: minutes && minutes * MINUTE, reductions: chosenReductions(), until_flat: byId("until_flat").checked,
  };
}

async function follow({ id }) { // until its study is there, or it ended without one
  const job = await readJson(`/api/jobs/${id}`);
  if (job?.url) return location.assign(job.url);
  if (job && job.state !== "running") {
    form.elements.send.disabled = false;
    return say(byId("launch-told"), job.log.at(-1) ?? t(`states.${job.state}`), true);
  }
  setTimeout(follow, JOB_MS / 2, { id });
}

form?.addEventListener("submit", async event => {
  event.preventDefault();
  const [first] = mistakes();
  if (first) {
    const place = document.getElementsByName(first)[0];
    if (place.closest("details")) place.closest("details").open = true;
    return place.focus();
  }
  form.elements.send.disabled = true;
  say(byId("launch-told"), t("service.getting_ready"));
  const job = await send("/api/studies", asked());
  if (job.error) {
    form.elements.send.disabled = false;
    return say(byId("launch-told"), job.error, true);
  }
  drawJobs();
  follow(job);
});

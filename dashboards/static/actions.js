// The buttons of the study page that change something: those that would be accepted now are shown.
"use strict";

const actions = byId("actions");
const told = byId("actions-told");
let seen = actions.dataset.state; // of the study, when it was last asked for
let stopping = false;
let asking = false;

function drawActions({ state, holder, job, actions: possible }) {
  for (const place of actions.querySelectorAll("[data-action]")) place.hidden = stopping || !possible.includes(place.dataset.action);
  if (state === "running" && seen !== "running" && holder) return location.reload(); // the page follows what runs
  seen = state;
  if (stopping && holder) return say(told, t("service.stopping"));
  if (job?.state === "running" && !holder) return say(told, t("service.getting_ready"));
  if (stopping || asking) say(told, "");
  stopping = asking = false;
  if (job?.state === "failed") tellWhy(job);
}

async function tellWhy({ id }) {
  const job = await ask(`/api/jobs/${id}`);
  if (job) say(told, job.log.at(-1) ?? t("states.failed"), true);
}

async function drawAgain() {
  const activity = await ask(`${actions.dataset.api}/activity`);
  if (activity) drawActions(activity);
}

async function act(action, body) {
  const { error } = await send(`${actions.dataset.api}/${action}`, body);
  if (error) return say(told, error, true);
  stopping = action === "stop";
  asking = !stopping;
  await drawAgain();
}

for (const button of actions.querySelectorAll("button[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
actions.querySelector("form")?.addEventListener("submit", event => {
  event.preventDefault();
  const { trials } = event.target.elements;
  if (!trials.validity.valid) return say(told, t("service.wrong.trials"), true);
  act("extend", { trials: Number(trials.value) });
});

async function watch() {
  await drawAgain();
  setTimeout(watch, JOB_MS);
}
watch();

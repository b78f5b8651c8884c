// The buttons of the study page that change something: those that would be accepted now are shown.
"use strict";

const actions = byId("actions");
const timeAgain = byId("disturbed-again"); // the same as one of the buttons, where the front was timed under disturbance
const actionsTold = byId("actions-told");
let lastState = actions.dataset.state; // of the study, when it was last asked for
let stopping = false;
let asking = false;

function drawActions({ state, holder, job, actions: possible }) {
  for (const place of actions.querySelectorAll("[data-action]")) place.hidden = stopping || !possible.includes(place.dataset.action);
  if (timeAgain) timeAgain.hidden = stopping || !possible.includes("retime");
  if (state === "running" && lastState !== "running" && holder && !stopping) return location.reload(); // the page follows what runs
  lastState = state;
  if (stopping && (holder || job?.state === "running")) return say(actionsTold, t("service.stopping"));
  if (job?.state === "running" && !holder) return say(actionsTold, t("service.getting_ready"));
  if (stopping || asking) say(actionsTold, "");
  stopping = asking = false;
  if (job?.state === "failed") tellWhy(job);
}

async function tellWhy({ id }) {
  const job = await readJson(`/api/jobs/${id}`);
  if (job) say(actionsTold, job.log.at(-1) ?? t("states.failed"), true);
}

async function drawAgain() {
  const activity = await readJson(`${actions.dataset.api}/activity`);
  if (activity) drawActions(activity);
}

async function takeAction(action, body) {
  const { error } = await send(`${actions.dataset.api}/${action}`, body);
  if (error) return say(actionsTold, error, true);
  stopping = action === "stop";
  asking = !stopping;
  await drawAgain();
}

for (const button of actions.querySelectorAll("button[data-action]")) button.addEventListener("click", () => takeAction(button.dataset.action));
actions.querySelector("form")?.addEventListener("submit", event => {
  event.preventDefault();
  const { trials } = event.target.elements;
  if (!trials.validity.valid) return say(actionsTold, t("service.wrong.trials"), true);
  takeAction("extend", { trials: Number(trials.value) });
});

timeAgain?.addEventListener("click", () => takeAction("retime"));

async function followActions() {
  await drawAgain();
  setTimeout(followActions, JOB_MS);
}
followActions();

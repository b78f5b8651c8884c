// The list of jobs: what runs and what ran, each with the end of its log. Drawn again while something runs.
"use strict";

const opened = new Set(); // ids of the jobs whose log is shown
let later = 0;

async function drawLog(id, place) {
  const job = await readJson(`/api/jobs/${id}`);
  if (job) place.textContent = job.log.join("\n") || t("service.no_log");
}

async function stopJob({ id }, button) {
  button.disabled = true;
  const { error } = await send(`/api/jobs/${id}/stop`);
  if (error) button.after(element("span", { className: "hint wrong", role: "alert" }, error));
  else button.replaceWith(element("span", { className: "hint", role: "status" }, t("service.stopping_job")));
  clearTimeout(later);
  later = setTimeout(drawJobs, JOB_MS);
}

function stopButton(job) { // for whoever signed in, while there is something to stop
  if (!CSRF || job.state !== "running") return null;
  const button = element("button", { type: "button", className: "quiet", title: t("service.stop_job_meaning") }, t("service.do.stop"));
  button.setAttribute("aria-label", t("service.stop_job", { study: job.study }));
  button.addEventListener("click", () => stopJob(job, button));
  return button;
}

function jobRow(job) {
  const log = element("pre", { tabIndex: 0 });
  log.setAttribute("aria-label", t("service.log"));
  const details = element("details", { open: opened.has(job.id) }, element("summary", {}, t("service.log")), log);
  details.addEventListener("toggle", () => {
    opened[details.open ? "add" : "delete"](job.id);
    if (details.open) drawLog(job.id, log);
  });
  if (details.open) drawLog(job.id, log);
  const started = element("time", { dateTime: job.started }, new Date(job.started).toLocaleString(LANGUAGE));
  return element("li", {},
    element("span", { className: `state ${job.state}` }, t(`states.${job.state}`)),
    job.url ? element("a", { href: job.url }, job.study) : element("b", {}, job.study),
    element("span", { className: "hint" }, t(`service.do.${job.action}`), " · ", started), stopButton(job), details);
}

async function drawJobs() {
  clearTimeout(later);
  const jobs = (await readJson("/launch.json"))?.jobs;
  if (jobs) {
    const focused = document.activeElement.closest("#jobs-list li :is(summary, pre, button)");
    if (!focused) byId("jobs-list").replaceChildren(...jobs.map(jobRow));
    byId("jobs-none").hidden = jobs.length > 0;
  }
  if (!jobs || jobs.some(job => job.state === "running")) later = setTimeout(drawJobs, JOB_MS);
}

drawJobs();

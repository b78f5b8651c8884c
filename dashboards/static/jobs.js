// The list of jobs: what runs and what ran, each with the end of its log. Drawn again while something runs.
"use strict";

const opened = new Set(); // ids of the jobs whose log is shown
let later = 0;

async function drawLog(id, place) {
  const job = await readJson(`/api/jobs/${id}`);
  if (job) place.textContent = job.log.join("\n") || t("service.no_log");
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
    element("span", { className: "hint" }, t(`service.do.${job.action}`), " · ", started), details);
}

async function drawJobs() {
  clearTimeout(later);
  const jobs = (await readJson("/launch.json"))?.jobs;
  if (jobs) {
    const focused = document.activeElement.closest("#jobs-list li summary, #jobs-list li pre");
    if (!focused) byId("jobs-list").replaceChildren(...jobs.map(jobRow));
    byId("jobs-none").hidden = jobs.length > 0;
  }
  if (!jobs || jobs.some(job => job.state === "running")) later = setTimeout(drawJobs, JOB_MS);
}

drawJobs();

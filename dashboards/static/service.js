// What pages of a service share: how they ask for a change, and how their reader signs out.
"use strict";

const JOB_MS = 2000;
const CSRF = document.querySelector("[data-csrf]")?.dataset.csrf;

async function send(address, body = {}) { // what the server answers, or { error } in one line
  let response;
  try {
    response = await fetch(address, { method: "POST", body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", ...(CSRF && { "X-CSRF-Token": CSRF }) } });
  } catch {
    return { error: t("service.unreachable") };
  }
  if (response.status === 401 && address !== "/sign-in") location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
  return response.status === 204 ? {} : response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
}

async function readJson(address) { // what a JSON address answers; null where it does not
  const response = await fetch(address).catch(() => null);
  return response?.ok ? response.json() : null;
}

function say(place, text, wrong = false) {
  place.textContent = text;
  place.classList.toggle("wrong", wrong);
}

byId("sign-out")?.addEventListener("click", async () => {
  const { error } = await send("/sign-out");
  if (!error) location.reload();
});

// The sign-in page: trades the token for a cookie, then goes on to the page that its reader came for.
"use strict";

const form = byId("sign-in");

form.addEventListener("submit", async event => {
  event.preventDefault();
  const token = byId("token");
  const { error } = token.value.trim() ? await send("/sign-in", { token: token.value }) : { error: t("signin.missing") };
  if (!error) return location.assign(form.dataset.next);
  token.setAttribute("aria-invalid", "true");
  byId("token-wrong").hidden = false;
  byId("token-wrong").textContent = error;
  token.focus();
});

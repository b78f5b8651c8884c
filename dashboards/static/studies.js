// The list of studies, as it is now.
"use strict";

watch(location.href, "/events", text => {
  const asked = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  const focused = document.activeElement?.getAttribute("href");
  document.querySelector("main").replaceChildren(...asked.childNodes);
  if (focused) document.querySelector(`main a[href="${CSS.escape(focused)}"]`)?.focus();
});

// The pictures of a report, drawn from what it holds.
"use strict";

for (const box of document.querySelectorAll(".drawn")) PICTURES[box.dataset.picture](box, JSON.parse(byId("pictures").textContent)[box.dataset.trial]);

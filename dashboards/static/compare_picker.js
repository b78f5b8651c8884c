// Boxes in the table of the front: the ticked trials are compared on a page of their own. The table is drawn again and again.
"use strict";

{
  const MOST_COMPARED = 4;
  const picker = byId("compare-picker");
  const rows = byId("front");
  const picked = new Set();

  const box = number => {
    const node = element("input", { type: "checkbox", checked: picked.has(number), ariaLabel: t("compare.pick", { number }) });
    node.addEventListener("click", event => event.stopPropagation()); // a click on the row chooses the trial
    node.addEventListener("change", () => {
      if (node.checked) picked.add(number);
      else picked.delete(number);
      offer();
    });
    return node;
  };

  function offer() {
    const numbers = [...picked].sort((one, other) => one - other);
    byId("compare-link").hidden = numbers.length < 2;
    byId("compare-link").href = `${picker.dataset.url}?trials=${numbers.join(",")}`;
    byId("compare-hint").textContent = numbers.length ? t("compare.picked", { count: numbers.length, trials: numbers.join(", ") }) : t("compare.tick");
    for (const node of rows.querySelectorAll("input[type=checkbox]")) node.disabled = picked.size >= MOST_COMPARED && !node.checked;
  }

  function addBoxes() {
    const buttons = [...rows.querySelectorAll("[data-trial]")].filter(button => !button.parentNode.querySelector("input"));
    for (const button of buttons) button.before(box(Number(button.dataset.trial)));
    picker.hidden = rows.children.length < 2;
    if (buttons.length) offer();
  }

  new MutationObserver(addBoxes).observe(rows, { childList: true });
  addBoxes();
}

// @ts-check
// Orders the answers of an open comparison: each answer has a place, pressed with its buttons, a digit or the arrow keys. Answers on the
// same place are tied. Gradio runs this text as a function's body, after row_buttons.js.

/** @param {Element} within @returns {HTMLElement | null} */
function formOf(within) {
  const form = within.closest("[data-order]");
  return form instanceof HTMLElement ? form : null;
}

/** @param {HTMLElement} form @returns {HTMLElement[]} */
function answersOf(form) {
  return [...form.querySelectorAll("[data-answer]")].filter((each) => each instanceof HTMLElement);
}

/** @param {HTMLElement} answer The place of an answer; 0 if it has none yet. */
function placeOf(answer) {
  const pressed = answer.querySelector("[data-place][aria-pressed=true]");
  return pressed instanceof HTMLElement ? Number(pressed.dataset.place) : 0;
}

/** @param {HTMLElement} form The order as the server reads it: `B > A = C`, without answers that have no place. */
function orderOf(form) {
  const tiers = answersOf(form).map((_, index) =>
    answersOf(form)
      .filter((answer) => placeOf(answer) === index + 1)
      .map((answer) => answer.dataset.answer)
      .join(" = "),
  );
  return tiers.filter(Boolean).join(" > ");
}

/** @param {HTMLElement} answer @param {number} place */
function put(answer, place) {
  const form = formOf(answer);
  if (!form || place < 1 || place > answersOf(form).length) return;
  for (const button of answer.querySelectorAll("[data-place]")) {
    if (button instanceof HTMLElement) button.setAttribute("aria-pressed", String(Number(button.dataset.place) === place));
  }
  const shown = form.querySelector("[data-order-now]");
  if (shown) shown.textContent = orderOf(form) || "–";
}

/** @param {HTMLElement} form */
function save(form) {
  const without = answersOf(form).find((answer) => placeOf(answer) === 0);
  if (without) return without.focus();
  trigger("click", { act: "gold", row: Number(form.dataset.order), order: orderOf(form) });
}

element.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-place], button[data-save-order]") : null;
  const form = button && formOf(button);
  if (!(button instanceof HTMLElement) || !form) return;
  const answer = button.closest("[data-answer]");
  if (answer instanceof HTMLElement) put(answer, Number(button.dataset.place));
  else save(form);
});

element.addEventListener("keydown", (event) => {
  const answer = event.target instanceof Element ? event.target.closest("[data-answer]") : null;
  const form = answer && formOf(answer);
  if (!(answer instanceof HTMLElement) || !form || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = answersOf(form);
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (/^[1-9]$/.test(event.key) && Number(event.key) <= all.length) {
    put(answer, Number(event.key));
    // The next digit is the place of the next answer.
    (all[all.indexOf(answer) + 1] ?? form.querySelector("[data-save-order]"))?.focus();
  } else if (step) put(answer, (placeOf(answer) || all.length + (step < 0 ? 1 : 0)) + step);
  else return;
  event.preventDefault();
});

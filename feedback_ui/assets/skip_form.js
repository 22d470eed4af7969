// @ts-check
// The chooser of a reason for skipping a comparison. While it is open it stands in the place of the choice bar.

import { byTestId, find, findAll } from "./dom.js";

/**
 * @param {HTMLElement} root the judging form
 * @param {HTMLElement} actions what it takes the place of
 * @param {{ submit: (reason: string) => void, isEnabled: () => boolean }} options
 */
export function makeSkipForm(root, actions, { submit, isEnabled }) {
  const form = find(root, ".rl-skip");
  const other = find(form, ".rl-skip-other");
  const text = byTestId(form, "skip-text", HTMLInputElement);

  function open() {
    if (!isEnabled()) return;
    form.hidden = false;
    actions.hidden = true;
    find(form, "[data-reason]").focus({ preventScroll: true });
  }

  function close() {
    form.hidden = true;
    other.hidden = true;
    actions.hidden = false;
    text.value = "";
  }

  function openOther() {
    other.hidden = false;
    text.focus();
  }

  /** @param {number} number */
  function chooseByNumber(number) {
    const reasons = findAll(form, "[data-reason]");
    if (reasons[number - 1]) submit(reasons[number - 1].dataset.reason ?? "");
    else if (number === reasons.length + 1) openOther();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = text.value.trim();
    if (reason) submit(reason);
  });

  return { open, close, openOther, chooseByNumber, isOpen: () => !form.hidden };
}

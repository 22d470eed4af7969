// @ts-check
// The form of a round: marks the options that differ from the chosen preset, and counts them on the groups that are closed.
// Gradio builds the fields of a group when it is opened, so that the values last seen are kept here.

/** @typedef {string | number | boolean | null} Value */

/** @type {Map<string, Value>} The values that were changed, by the option's name. */
let seen = new Map();

let preset = "";

/** @returns {{ form: HTMLElement, marks: HTMLElement } | null} */
function parts() {
  const form = document.querySelector("#round-form");
  const marks = document.querySelector("[data-testid=option-marks]");
  return form instanceof HTMLElement && marks instanceof HTMLElement ? { form, marks } : null;
}

/** @param {Element} block @returns {Value} */
function valueOf(block) {
  const input = block.querySelector("input, textarea");
  if (input instanceof HTMLInputElement) return input.type === "checkbox" ? input.checked : input.value;
  return input instanceof HTMLTextAreaElement ? input.value : null;
}

/** @param {Value} typed @param {Value} expected */
function differs(typed, expected) {
  if (typeof expected === "number") return typed === "" || Number(typed) !== expected;
  return (typed ?? "") !== (expected ?? "");
}

/** Marks the fields that can be seen, and the groups by the values last seen. */
export function markOptions() {
  const found = parts();
  if (!found) return;
  const { form, marks } = found;
  /** @type {Record<string, Record<string, Value>>} */
  const presets = JSON.parse(marks.dataset.presets ?? "{}");
  const chosen = form.querySelector("#preset input");
  const named = chosen instanceof HTMLInputElement ? chosen.value : "";
  const name = named in presets ? named : (marks.dataset.custom ?? "");
  if (name !== preset) {
    preset = name;
    seen = new Map();
  }
  const word = document.querySelector("#option-changed")?.textContent?.trim() ?? "";
  for (const [option, expected] of Object.entries(presets[preset] ?? {})) {
    const block = form.querySelector(`#option-${option}`);
    if (!block) continue;
    seen.set(option, valueOf(block));
    const changed = differs(seen.get(option) ?? null, expected);
    block.classList.toggle("rl-changed", changed);
    const title = block.querySelector("[data-testid=block-info], label > span:last-of-type");
    if (title instanceof HTMLElement) mark(title, changed ? word : "");
  }
  /** @type {Record<string, string[]>} */
  const groups = JSON.parse(marks.dataset.groups ?? "{}");
  for (const [group, members] of Object.entries(groups)) {
    const count = members.filter((each) => seen.has(each) && differs(seen.get(each) ?? null, presets[preset]?.[each] ?? null)).length;
    const title = form.querySelector(`#options-${group} button span`);
    if (title instanceof HTMLElement) mark(title, count ? `${count} ${word}` : "");
  }
}

/** @param {HTMLElement} title @param {string} text */
function mark(title, text) {
  if ((title.dataset.mark ?? "") === text) return;
  if (text) title.dataset.mark = text;
  else delete title.dataset.mark;
}

/** Marks options from now on, whenever one is changed or a group is opened. */
export function followOptions() {
  const found = parts();
  if (!found || found.form.dataset.followed) return;
  found.form.dataset.followed = "true";
  const later = () => requestAnimationFrame(markOptions);
  for (const event of ["input", "change", "click", "focusout"]) found.form.addEventListener(event, later);
  new MutationObserver(later).observe(found.form, { subtree: true, childList: true });
  markOptions();
}

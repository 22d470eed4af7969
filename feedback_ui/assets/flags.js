// @ts-check
// The dialog of flags: what is wrong with the prompt or with one answer, with a note.

import { byTestId, find, findAll, make } from "./dom.js";
import { t } from "./i18n.js";

/** @typedef {import("./types.js").Slot} Slot */

export const PROMPT = "prompt";

const KINDS = ["unsafe", "personal_data", "wrong_language", "broken_prompt"];

/**
 * @param {HTMLElement} root
 * @param {{ changed: () => void, nameOf: (slot: Slot) => string }} options
 */
export function makeFlags(root, { changed, nameOf }) {
  const dialog = find(root, ".rl-flag-dialog", HTMLDialogElement);
  const note = byTestId(dialog, "flag-note", HTMLInputElement);
  /** @type {Map<Slot | typeof PROMPT, { kinds: Set<string>, note: string }>} */
  let flags = new Map();
  /** @type {Slot | typeof PROMPT} */
  let target = PROMPT;
  let answers = 0;

  /** @param {Slot | typeof PROMPT} where */
  function flagsOf(where) {
    const there = flags.get(where) ?? { kinds: new Set(), note: "" };
    flags.set(where, there);
    return there;
  }

  /** @param {string | undefined} text @returns {Slot | typeof PROMPT} */
  const parseTarget = (text) => (text === undefined || text === PROMPT ? PROMPT : Number(text));

  function renderDialog() {
    const targets = [/** @type {typeof PROMPT} */ (PROMPT), ...Array(answers).keys()];
    find(dialog, ".rl-flag-targets").replaceChildren(...targets.map((where) => make(
      "label", { class: "rl-option" },
      make("input", { type: "radio", name: "rl-flag-target", value: where, checked: where === target, testid: `flag-on-${where}` }),
      make("span", {}, where === PROMPT ? t("compare.prompt") : nameOf(where)),
    )));
    // Only a prompt can be a broken prompt.
    const kinds = KINDS.filter((kind) => target === PROMPT || kind !== "broken_prompt");
    find(dialog, ".rl-flag-kinds").replaceChildren(...kinds.map((kind) => make(
      "label", { class: "rl-checkbox" },
      make("input", { type: "checkbox", value: kind, checked: flagsOf(target).kinds.has(kind), testid: `flag-${kind}` }),
      make("span", {}, t(`compare.flag.${kind}`)),
    )));
    note.value = flagsOf(target).note;
  }

  function renderMarks() {
    for (const box of findAll(root, "[data-flags]")) {
      const where = parseTarget(box.dataset.flags);
      const kinds = [...(flags.get(where)?.kinds ?? [])];
      box.replaceChildren(...(kinds.length ? [make(
        "button", { type: "button", class: "rl-flag", "data-act": "flag", "data-target": where, testid: `flags-${where}` },
        kinds.map((kind) => t(`compare.flag.${kind}`)).join(" · "),
      )] : []));
    }
  }

  dialog.addEventListener("change", ({ target: input }) => {
    if (!(input instanceof HTMLInputElement)) return;
    if (input.type === "radio") {
      target = parseTarget(input.value);
      renderDialog();
      find(dialog, "[name=rl-flag-target]:checked").focus();
    } else if (input.type === "checkbox") {
      flagsOf(target).kinds[input.checked ? "add" : "delete"](input.value);
      renderMarks();
      changed();
    }
  });
  note.addEventListener("input", () => {
    flagsOf(target).note = note.value;
    changed();
  });

  return {
    /** @param {import("./types.js").ComparisonView} view */
    render(view) {
      flags = new Map();
      target = PROMPT;
      answers = view.answers.length;
      if (dialog.open) dialog.close();
      renderMarks();
    },
    /** @param {import("./types.js").Flag[]} [stored] */
    restore(stored = []) {
      for (const flag of stored) {
        const there = flagsOf(flag.slot ?? PROMPT);
        there.kinds.add(flag.kind);
        there.note = flag.note;
      }
      renderMarks();
    },
    /** Opens the dialog on one target. @param {string} [where] a slot or PROMPT; the last one if it is missing */
    open(where) {
      if (where !== undefined) target = parseTarget(where);
      renderDialog();
      dialog.showModal();
      find(dialog, ".rl-flag-kinds input").focus();
    },
    isOpen: () => dialog.open,
    /** @returns {import("./types.js").Flag[]} */
    value() {
      return [...flags].flatMap(([where, there]) =>
        [...there.kinds].map((kind) => ({ kind, note: there.note.trim(), slot: where === PROMPT ? null : where })));
    },
  };
}

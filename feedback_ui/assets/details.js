// @ts-check
// The inputs of a judgment besides the choice: ratings by aspect, a rationale, an ideal answer. The project's settings decide
// which of them are on the page.

import { closest, find, findAll, keyCap, make, targetOf } from "./dom.js";
import { t } from "./i18n.js";

/** @typedef {import("./types.js").ComparisonView} ComparisonView */
/** @typedef {import("./types.js").Slot} Slot */

const MAX_CHARACTERS = 20000;

/** The length as the server counts it: an emoji is one character. @param {string} text */
const lengthOf = (text) => [...text.trim()].length;

/** @param {HTMLTextAreaElement} field */
function fitHeight(field) {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, window.innerHeight / 2)}px`;
}

/**
 * @param {HTMLElement} root
 * @param {{ changed: () => void, nameOf: (slot: Slot) => string }} options
 */
export function makeDetails(root, { changed, nameOf }) {
  const box = find(root, ".rl-details");
  /** @type {ComparisonView} */
  let view;
  /** @type {import("./types.js").Ratings} */
  let ratings = {};
  /** @type {string | null} The rationale once its field was opened. */
  let rationale = null;
  /** @type {import("./types.js").IdealAnswer | null} The ideal answer once its field was opened. */
  let ideal = null;
  let idealEdited = false;

  // ---- ratings

  /** @param {Slot} slot */
  function ratingFields(slot) {
    const { aspects, scale } = view.inputs;
    return aspects.map((aspect, row) => {
      const group = `rl-aspect-${slot}-${row}`;
      const options = Array.from({ length: scale }, (_, i) => make(
        "label", { class: "rl-option" },
        make("input", {
          type: "radio", name: group, value: i + 1, required: true, "data-slot": slot, "data-aspect": row, testid: `rate-${slot}-${row}-${i + 1}`,
        }),
        make("span", {}, String(i + 1)),
      ));
      return make(
        "fieldset", { class: "rl-aspect", "data-group": group },
        make("legend", {}, aspect),
        make(
          "div", { class: "rl-options" },
          make("span", { class: "rl-scale-end" }, t("compare.scale_low")), options, make("span", { class: "rl-scale-end" }, t("compare.scale_high")),
        ),
      );
    });
  }

  function ratingsHead() {
    return make("p", { class: "rl-aspects-head" }, t("compare.ratings"), " ", make("span", { class: "rl-required" }, t("compare.required")));
  }

  /** @param {HTMLInputElement} input */
  function rate(input) {
    const { slot = "", aspect } = input.dataset;
    input.checked = true;
    (ratings[slot] ??= {})[view.inputs.aspects[Number(aspect)]] = Number(input.value);
    changed();
  }

  /** @param {string} name @param {number} rating */
  function ratingInput(name, rating) {
    return root.querySelector(`input[name="${name}"][value="${rating}"]`);
  }

  /** The first rating that is missing for one of these slots. @param {Slot[]} slots */
  function unrated(slots) {
    for (const slot of slots) {
      for (const [row, aspect] of view.inputs.aspects.entries()) {
        if (!ratings[slot]?.[aspect]) return { slot, row, aspect };
      }
    }
    return null;
  }

  // ---- the rationale

  function rationaleField() {
    const { min_chars } = view.inputs;
    const required = view.inputs.rationale === "required";
    const field = make("textarea", {
      id: "rl-rationale", rows: 2, maxlength: MAX_CHARACTERS, testid: "rationale", "aria-describedby": "rl-rationale-count",
      required, dir: "auto",
    });
    field.value = rationale ?? "";
    const hint = make("span", { class: "rl-hint", id: "rl-rationale-count", testid: "rationale-count" });
    const renderCount = () => {
      const count = lengthOf(field.value);
      hint.textContent = required ? t("compare.chars_of", { count, least: min_chars }) : "";
      hint.classList.toggle("rl-long-enough", count >= min_chars);
    };
    field.addEventListener("input", () => {
      rationale = field.value;
      renderCount();
      fitHeight(field);
      changed();
    });
    renderCount();
    const label = make("label", { for: "rl-rationale" }, t(required ? "compare.reason" : "compare.reason_optional"));
    return make("div", { class: "rl-field" }, make("div", { class: "rl-field-head" }, label, hint), field);
  }

  const focusRationale = () => find(root, "#rl-rationale").focus();

  /** How many characters a required rationale still lacks. */
  function missingCharacters() {
    if (view.inputs.rationale !== "required") return 0;
    return Math.max(0, view.inputs.min_chars - lengthOf(rationale ?? ""));
  }

  // ---- the ideal answer

  /** The Markdown of an answer, to start an ideal answer from. @param {Slot | null} slot */
  const sourceOf = (slot) => (slot === null ? "" : view.sources?.[slot] ?? "");

  /** @param {import("./types.js").IdealAnswer} written */
  function idealField(written) {
    const starts = [...view.answers.keys(), null].map((slot) => make(
      "label", { class: "rl-option" },
      make("input", {
        type: "radio", name: "rl-ideal-from", value: slot ?? "", checked: slot === written.slot, testid: `ideal-from-${slot ?? "nothing"}`,
      }),
      make("span", {}, slot === null ? t("compare.ideal_nothing") : nameOf(slot)),
    ));
    const field = make("textarea", {
      id: "rl-ideal", rows: 6, maxlength: MAX_CHARACTERS, testid: "ideal", "aria-label": t("compare.ideal"), dir: "auto",
    });
    field.value = written.text;
    field.addEventListener("input", () => {
      written.text = field.value;
      idealEdited = true;
      fitHeight(field);
      changed();
    });
    const chooser = make(
      "fieldset", { class: "rl-ideal-start" },
      make("legend", {}, t("compare.ideal_from")), make("div", { class: "rl-options" }, starts),
    );
    chooser.addEventListener("change", ({ target }) => {
      if (!(target instanceof HTMLInputElement)) return;
      written.slot = target.value === "" ? null : Number(target.value);
      // Text that the annotator has edited is not replaced by another start.
      if (!idealEdited) written.text = field.value = sourceOf(written.slot);
      fitHeight(field);
      changed();
    });
    const discard = make("button", { type: "button", class: "rl-text-button", "data-act": "drop-ideal", testid: "drop-ideal" }, t("compare.ideal_drop"));
    const head = make("div", { class: "rl-field-head" }, make("span", {}, t("compare.ideal")), discard);
    return make("div", { class: "rl-field" }, head, chooser, field);
  }

  /** The ideal answer to submit; null if the text is that of an answer on the page, unchanged. */
  function submittedIdeal() {
    if (!ideal?.text.trim()) return null;
    return ideal.slot === null || ideal.text !== sourceOf(ideal.slot) ? { ...ideal } : null;
  }

  // ---- rendering

  function render() {
    const { inputs } = view;
    const fields = [];
    const buttons = [];
    if (inputs.rationale === "required" || rationale !== null) fields.push(rationaleField());
    else if (inputs.rationale === "optional") buttons.push(openButton("reason", "R"));
    if (ideal) fields.push(idealField(ideal));
    else if (inputs.ideal) buttons.push(openButton("ideal", "E"));
    if (buttons.length) fields.push(make("div", { class: "rl-detail-buttons" }, buttons));
    box.replaceChildren(...fields);
    box.hidden = fields.length === 0;
    for (const field of findAll(box, "textarea", HTMLTextAreaElement)) fitHeight(field);
  }

  /** @param {string} name @param {string} key */
  function openButton(name, key) {
    return make(
      "button", { type: "button", class: "rl-text-button", "data-act": name, testid: `open-${name}`, "aria-keyshortcuts": key },
      t(`compare.open_${name}`), " ", keyCap(key),
    );
  }

  root.addEventListener("change", ({ target }) => {
    if (target instanceof HTMLInputElement && target.dataset.aspect !== undefined) rate(target);
  });

  return {
    /** @param {ComparisonView} next */
    render(next) {
      view = next;
      ratings = {};
      rationale = null;
      ideal = null;
      idealEdited = false;
      for (const card of findAll(root, ".rl-answer")) {
        const fields = ratingFields(Number(card.dataset.slot));
        find(card, ".rl-aspects").replaceChildren(...(fields.length ? [ratingsHead(), ...fields] : []));
      }
      render();
    },
    /** @param {import("./types.js").Draft} draft */
    restore(draft) {
      for (const [slot, byAspect] of Object.entries(draft.aspects ?? {})) {
        for (const [aspect, rating] of Object.entries(byAspect)) {
          const input = ratingInput(`rl-aspect-${slot}-${view.inputs.aspects.indexOf(aspect)}`, rating);
          if (input instanceof HTMLInputElement) rate(input);
        }
      }
      if (draft.ideal && view.inputs.ideal) {
        ideal = { ...draft.ideal };
        idealEdited = true;
      }
      if (draft.rationale && view.inputs.rationale !== "off") rationale = draft.rationale;
      render();
    },
    openRationale() {
      if (view.inputs.rationale === "off") return;
      if (rationale === null) {
        rationale = "";
        render();
      }
      focusRationale();
    },
    /** @param {Slot | null} slot the answer to start from */
    openIdeal(slot) {
      if (!view.inputs.ideal) return;
      if (!ideal) {
        ideal = { slot, text: sourceOf(slot) };
        render();
      }
      find(root, "#rl-ideal").focus();
    },
    dropIdeal() {
      ideal = null;
      idealEdited = false;
      render();
      find(root, "[data-testid=open-ideal]").focus();
      changed();
    },
    /**
     * A digit in a group of ratings rates, and moves on to the next group. True if the key was handled.
     * @param {KeyboardEvent} event
     * @param {string} key
     */
    onKey(event, key) {
      const input = closest(targetOf(event), "[data-aspect]");
      if (!(input instanceof HTMLInputElement) || !/^\d$/.test(key)) return false;
      const rated = ratingInput(input.name, key === "0" ? 10 : Number(key));
      if (!(rated instanceof HTMLInputElement)) return true;
      rate(rated);
      const groups = findAll(root, ".rl-aspect");
      const next = groups[groups.findIndex((group) => group.dataset.group === input.name) + 1];
      const field = next?.querySelector("input:checked") ?? next?.querySelector("input") ?? root.querySelector("#rl-rationale") ?? rated;
      /** @type {HTMLElement} */ (field).focus();
      return true;
    },
    /** How many of the ratings of these slots are there. @param {Slot[]} slots */
    rated(slots) {
      const { aspects } = view.inputs;
      const rated = slots.flatMap((slot) => aspects.filter((aspect) => ratings[slot]?.[aspect])).length;
      return { rated, all: slots.length * aspects.length };
    },
    /**
     * The first input that the project requires and that is missing.
     * @param {Slot[]} slots the answers that are judged
     * @returns {import("./types.js").Missing | null}
     */
    missing(slots) {
      const rating = unrated(slots);
      if (rating) {
        return {
          message: t("compare.missing_rating", { answer: nameOf(rating.slot), aspect: rating.aspect }),
          focus: () => find(root, `[name="rl-aspect-${rating.slot}-${rating.row}"]`).focus(),
        };
      }
      const count = missingCharacters();
      return count ? { message: t("compare.missing_reason", { count }), focus: focusRationale } : null;
    },
    /**
     * What is submitted with a judgment of these slots.
     * @param {Slot[]} slots
     * @returns {import("./types.js").Details}
     */
    value(slots) {
      return {
        aspects: Object.fromEntries(slots.filter((slot) => ratings[slot]).map((slot) => [slot, ratings[slot]])),
        rationale: rationale?.trim() ?? "",
        ideal: submittedIdeal(),
      };
    },
    /** All inputs, also those that would not be submitted. @returns {import("./types.js").Details} */
    draft: () => ({ aspects: ratings, rationale: rationale ?? "", ideal: idealEdited ? ideal : null }),
    isRequired: () => view.inputs.rationale === "required" || view.inputs.aspects.length > 0,
  };
}

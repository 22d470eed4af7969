// @ts-check
// The bar of the judging form: the buttons of the choices in each mode, and of saving, skipping and undoing.

import { find, findAll, make, makeButton } from "./dom.js";
import { t } from "./i18n.js";
import { SCALES, keyOfStep } from "./keys.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Mode} Mode */

/**
 * @typedef {object} BarState
 * @property {Mode} mode
 * @property {boolean} needsSave whether a choice alone does not submit the judgment
 * @property {boolean} enabled
 */

/**
 * @param {HTMLElement} root the element that holds the buttons
 * @param {{ correcting: boolean }} options
 */
export function makeChoiceBar(root, { correcting }) {
  /**
   * @param {Answer} choice
   * @param {string} text
   * @param {string} key
   * @param {string} testid
   * @param {string} [kind] further classes
   * @param {string | null} [label] the name for a screen reader, if it differs
   */
  function choiceButton({ choice, strength }, text, key, testid, kind = "", label = null) {
    return makeButton(text, {
      key, class: `rl-button ${kind}`, "data-choice": choice, "data-strength": strength, testid, "aria-label": label, "aria-pressed": "false",
    });
  }

  /** @param {import("./keys.js").PairMode} mode */
  function scale(mode) {
    const steps = SCALES[mode].map((step, i) => stepButton(mode, step, keyOfStep(mode, i)));
    const ends = mode !== "fine" ? [] : ["a", "b"].map((choice) => make(
      "p", { class: `rl-strength-end rl-strength-end-${choice}`, "aria-hidden": "true" }, t(`compare.verdict.${choice}`),
    ));
    return make("div", { class: "rl-strength-scale" }, ends, steps);
  }

  /** @param {import("./keys.js").PairMode} mode @param {Answer} step @param {string} key */
  function stepButton(mode, step, key) {
    const { choice, strength } = step;
    if (choice === "tie") return choiceButton(step, t("compare.tie"), key, "choose-tie", "rl-strength rl-strength-tie");
    const verdict = t(strength ? `compare.verdict.${choice}_${strength}` : `compare.verdict.${choice}`);
    const text = mode === "fine" ? t(`compare.strength.${strength}`) : verdict;
    // "Better" is the choice without a strength, so it has the plain name.
    const isPlain = strength === null || strength === "better";
    const kind = `rl-strength rl-strength-${choice} ${isPlain ? "rl-primary" : "rl-further"}`;
    return choiceButton(step, text, key, isPlain ? `choose-${choice}` : `choose-${choice}-${strength}`, kind, verdict);
  }

  /** @param {string} name @param {string} key */
  function actionButton(name, key) {
    return makeButton(t(`compare.${name}`), { key, class: "rl-button rl-secondary", "data-act": name, testid: name, disabled: true });
  }

  function saveButton() {
    return makeButton(correcting ? t("compare.save_correction") : t("compare.save"), {
      key: "Enter", shortcut: "Enter Control+Enter", class: "rl-button rl-primary rl-save-button",
      "data-act": "save", testid: "save", disabled: true,
    });
  }

  /** @param {BarState} state */
  function buttons({ mode, needsSave }) {
    const question = make("p", { class: "rl-question", testid: "question" }, t(mode === "rank" ? "compare.question_rank" : "compare.question"));
    const badText = t(mode === "rank" ? "compare.all_bad" : "compare.both_bad");
    const bad = choiceButton({ choice: "both_bad", strength: null }, badText, "X", "choose-both-bad", "rl-secondary");
    const row = make(
      "div", { class: "rl-button-row" },
      bad, actionButton("skip", "S"), correcting ? null : actionButton("undo", "U"),
      make("p", { class: "rl-rated", testid: "rated" }), needsSave ? saveButton() : null,
    );
    return mode === "rank" ? [question, row] : [question, scale(mode), row];
  }

  return {
    /** Builds the bar, unless it is the right one already. @param {BarState} state */
    build(state) {
      const wanted = `${state.mode} ${state.needsSave}`;
      if (root.dataset.built === wanted) return;
      root.dataset.built = wanted;
      root.dataset.mode = state.mode;
      root.replaceChildren(...buttons(state));
      for (const button of findAll(root, "[data-choice]", HTMLButtonElement)) button.disabled = !state.enabled;
    },
    /** Marks the choice. @param {Answer} answer */
    renderChoice(answer) {
      for (const button of findAll(root, "[data-choice]")) {
        const pressed = button.dataset.choice === answer.choice && (button.dataset.strength ?? "better") === (answer.strength ?? "better");
        button.setAttribute("aria-pressed", String(pressed));
      }
    },
    /** Sets what the save button of a ranking says. @param {string} text */
    setSaveText(text) {
      find(root, "[data-testid=save] > span").textContent = text;
    },
    /** Says how many of the required ratings are there. @param {string} text */
    setRated(text) {
      find(root, ".rl-rated").textContent = text;
    },
    focusFirst: () => find(root, "[data-choice]").focus(),
  };
}

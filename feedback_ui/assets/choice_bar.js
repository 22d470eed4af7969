// @ts-check
// The bar of the judging form: the buttons of the choices in each mode, and of saving, skipping and undoing.

import { find, findAll, make, makeButton } from "./dom.js";
import { t } from "./i18n.js";
import { SCALE } from "./keys.js";

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

  function scaleButtons() {
    return SCALE.map((step, i) => {
      const { choice, strength } = step;
      const key = String(i + 1);
      if (choice === "tie") return choiceButton(step, t("compare.tie"), key, "choose-tie", "rl-strength rl-strength-tie");
      // "Better" is the choice without a strength, so it has the plain name.
      const testid = strength === "better" ? `choose-${choice}` : `choose-${choice}-${strength}`;
      return choiceButton(
        step, t(`compare.strength.${strength}`), key, testid, `rl-strength rl-strength-${choice}`, t(`compare.verdict.${choice}_${strength}`),
      );
    });
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
    const common = [actionButton("skip", "S")];
    if (!correcting) common.push(actionButton("undo", "U"));
    if (needsSave) common.push(saveButton());
    const badText = t(mode === "rank" ? "compare.all_bad" : "compare.both_bad");
    const bad = choiceButton({ choice: "both_bad", strength: null }, badText, "X", "choose-both-bad", "rl-secondary");
    const row = make("div", { class: "rl-button-row" }, bad, ...common);
    if (mode === "rank") return [row];
    if (mode === "scale") {
      const ends = ["a", "b"].map((choice) => make(
        "p", { class: `rl-strength-end rl-strength-end-${choice}`, "aria-hidden": "true" }, t(`compare.verdict.${choice}`),
      ));
      return [make("div", { class: "rl-strength-scale" }, ends, scaleButtons()), row];
    }
    return [
      choiceButton({ choice: "a", strength: null }, t("compare.verdict.a"), "1", "choose-a", "rl-primary"),
      choiceButton({ choice: "b", strength: null }, t("compare.verdict.b"), "2", "choose-b", "rl-primary"),
      choiceButton({ choice: "tie", strength: null }, t("compare.tie"), "T", "choose-tie"),
      bad, ...common,
    ];
  }

  return {
    /** Builds the bar, unless it is the right one already. @param {BarState} state */
    build(state) {
      const wanted = `${state.mode} ${state.needsSave}`;
      if (root.dataset.built === wanted) return;
      root.dataset.built = wanted;
      root.dataset.mode = state.mode;
      root.classList.toggle("rl-with-save", state.needsSave);
      root.replaceChildren(...buttons(state));
      for (const button of findAll(root, "[data-choice]", HTMLButtonElement)) button.disabled = !state.enabled;
    },
    /** Marks the choice. @param {Answer} answer */
    renderChoice(answer) {
      for (const button of findAll(root, "[data-choice]")) {
        const pressed = button.dataset.choice === answer.choice && (button.dataset.strength ?? null) === answer.strength;
        button.setAttribute("aria-pressed", String(pressed));
      }
    },
    /** Sets what the save button of a ranking says. @param {string} text */
    setSaveText(text) {
      find(root, "[data-testid=save] > span").textContent = text;
    },
    focusFirst: () => find(root, "[data-choice]").focus(),
  };
}

// @ts-check
// What a comparison shows: a card for each answer, and the turns of its prompt.

import { make, setProse } from "./dom.js";
import { t } from "./i18n.js";

/**
 * @param {string} html
 * @param {import("./types.js").Slot} slot
 * @param {{ letter: string, name: string, isCut: boolean, hasGrip: boolean, other: { slot: number, letter: string } | null }} options
 *   `isCut`: whether it ended at its length limit; `hasGrip`: whether its letter can be dragged; `other`: the other one of two answers
 */
export function answerCard(html, slot, { letter, name, isCut, hasGrip, other }) {
  const text = make("div", { class: "rl-text", dir: "auto" });
  setProse(text, html, t("compare.empty_answer"));
  return make(
    "article", { class: "rl-answer", "data-slot": slot, testid: `answer-${letter.toLowerCase()}`, "aria-label": name },
    make(
      "header", { class: "rl-answer-head" },
      make("h2", { "data-grip": hasGrip ? slot : null }, letter),
      make("span", { class: "rl-flags", "data-flags": slot }),
      make("span", { class: "rl-place-buttons" }),
      other && make(
        "button", { type: "button", class: "rl-text-button rl-jump", "data-act": "jump", "data-target": other.slot, testid: `jump-${letter.toLowerCase()}` },
        t("compare.jump", { answer: other.letter }),
      ),
    ),
    text,
    isCut ? make("p", { class: "rl-cut-off", testid: "cut-off" }, t("compare.cut_off")) : null,
    make("div", { class: "rl-aspects" }),
  );
}

/** @param {import("./types.js").Turn} turn */
export function turnElement({ role, speaker, html }) {
  const text = make("div", { class: "rl-text", dir: "auto" });
  setProse(text, html, t("compare.empty_turn"));
  return make("div", { class: `rl-turn rl-turn-${role}` }, speaker ? make("p", { class: "rl-role" }, speaker) : null, text);
}

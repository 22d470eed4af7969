// @ts-check
// What a comparison shows: a card for each answer, and the turns of its prompt.

import { make, setProse } from "./dom.js";
import { t } from "./i18n.js";

/**
 * @param {string} html
 * @param {import("./types.js").Slot} slot
 * @param {{ letter: string, name: string, hasGrip: boolean }} options `hasGrip`: whether its letter can be dragged
 */
export function answerCard(html, slot, { letter, name, hasGrip }) {
  const text = make("div", { class: "rl-text", dir: "auto" });
  setProse(text, html, t("compare.empty_answer"));
  return make(
    "article", { class: "rl-answer", "data-slot": slot, testid: `answer-${letter.toLowerCase()}`, "aria-label": name },
    make(
      "header", { class: "rl-answer-head" },
      make("h2", { "data-grip": hasGrip ? slot : null }, letter),
      make("span", { class: "rl-flags", "data-flags": slot }),
      make("span", { class: "rl-place-buttons" }),
    ),
    text,
    make("div", { class: "rl-aspects" }),
  );
}

/** @param {import("./types.js").Turn} turn */
export function turnElement({ role, speaker, html }) {
  const text = make("div", { class: "rl-text", dir: "auto" });
  setProse(text, html, t("compare.empty_turn"));
  return make("div", { class: `rl-turn rl-turn-${role}` }, speaker ? make("p", { class: "rl-role" }, speaker) : null, text);
}

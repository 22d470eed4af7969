// @ts-check
// The keys of each way of judging: the choice that a key makes, and the rows of the key map.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Inputs} Inputs */
/** @typedef {import("./types.js").Mode} Mode */

/** @type {import("./types.js").Strength[]} */
const STRENGTHS = ["significantly", "better", "slightly", "negligibly"];

/** @type {Answer[]} The steps of the scale from left to right; the digits 1 to 9 are in the same order. */
export const SCALE = [
  ...STRENGTHS.map((strength) => /** @type {Answer} */ ({ choice: "a", strength })),
  { choice: "tie", strength: null },
  ...STRENGTHS.toReversed().map((strength) => /** @type {Answer} */ ({ choice: "b", strength })),
];

/** @param {import("./types.js").Strength | null} strength the strength of a choice by letter or arrow @returns {Record<string, Answer>} */
const pairKeys = (strength) => ({
  a: { choice: "a", strength },
  arrowleft: { choice: "a", strength },
  b: { choice: "b", strength },
  arrowright: { choice: "b", strength },
  t: { choice: "tie", strength: null },
  x: { choice: "both_bad", strength: null },
});

/** @type {Record<Mode, Record<string, Answer>>} */
export const CHOICE_KEYS = {
  choose: { ...pairKeys(null), 1: { choice: "a", strength: null }, 2: { choice: "b", strength: null } },
  scale: { ...pairKeys("better"), ...Object.fromEntries(SCALE.map((answer, i) => [i + 1, answer])) },
  rank: { x: { choice: "both_bad", strength: null } },
};

/** @typedef {[keys: string[], textKey: string]} KeyMapRow */

/** @type {Record<Mode, KeyMapRow[]>} */
const KEY_MAP = {
  choose: [
    [["1", "A", "←"], "compare.verdict.a"], [["2", "B", "→"], "compare.verdict.b"], [["T"], "compare.help.tie"], [["X"], "compare.verdict.both_bad"],
  ],
  scale: [
    [["1", "–", "4"], "compare.help.scale_a"], [["5", "T"], "compare.help.tie"], [["6", "–", "9"], "compare.help.scale_b"],
    [["A", "←"], "compare.verdict.a"], [["B", "→"], "compare.verdict.b"], [["X"], "compare.verdict.both_bad"],
  ],
  rank: [
    [["1", "–", "9"], "rank.help.digit"], [["="], "rank.help.equals"], [["0"], "rank.help.rest"], [["⌫"], "rank.help.back"],
    [["↑", "↓"], "rank.help.arrows"], [["Enter"], "rank.help.save"], [["X"], "compare.verdict.all_bad"],
  ],
};

/**
 * The rows of the key map for the inputs that are on the page.
 * @param {Mode} mode
 * @param {{ inputs: Inputs | undefined, correcting: boolean, needsSave: boolean, hasGuidelines: boolean }} options
 */
export function keyMap(mode, { inputs, correcting, needsSave, hasGuidelines }) {
  const rows = [...KEY_MAP[mode]];
  if (inputs?.aspects.length) rows.push([["1", "–", String(Math.min(inputs.scale, 9))], "compare.help.rate"]);
  if (inputs && inputs.rationale !== "off") rows.push([["R"], "compare.help.reason"]);
  if (inputs?.ideal) rows.push([["E"], "compare.help.ideal"]);
  if (inputs?.flags) rows.push([["F"], "compare.help.flag"]);
  if (hasGuidelines) rows.push([["G"], "compare.help.guidelines"]);
  if (needsSave && mode !== "rank") rows.push([["Enter"], "compare.help.save_button"]);
  rows.push([["Ctrl", "Enter"], "compare.help.save"], [["S"], "compare.help.skip"]);
  if (!correcting) rows.push([["U"], "compare.help.undo"]);
  rows.push([["Esc"], "compare.help.escape"], [["?"], "compare.help.help"]);
  return rows.map(([keys, textKey]) => make(
    "div", {},
    make("dt", {}, keys.map((key) => (key === "–" ? "–" : make("kbd", {}, key)))),
    make("dd", {}, t(textKey)),
  ));
}

// @ts-check
// The keys of each way of judging: the choice that a key makes, and the rows of the key map.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Inputs} Inputs */
/** @typedef {import("./types.js").Mode} Mode */

/** @typedef {Exclude<Mode, "rank">} PairMode */

/**
 * The steps of a scale from left to right, from the strengths of A.
 * @param {Answer["strength"][]} strengths
 * @returns {Answer[]}
 */
const scaleOf = (strengths) => [
  ...strengths.map((strength) => /** @type {Answer} */ ({ choice: "a", strength })),
  { choice: "tie", strength: null },
  ...strengths.toReversed().map((strength) => /** @type {Answer} */ ({ choice: "b", strength })),
];

/** @type {Record<PairMode, Answer[]>} */
export const SCALES = {
  choose: scaleOf([null]),
  scale: scaleOf(["significantly", "better"]),
  fine: scaleOf(["significantly", "better", "slightly", "negligibly"]),
};

/** @param {PairMode} mode @returns {Record<string, Answer>} The digits from 1 on, in the order of the steps. */
const digitKeys = (mode) => Object.fromEntries(SCALES[mode].map((answer, i) => [i + 1, answer]));

/** The key that stands on a step's button. @param {PairMode} mode @param {number} step */
export const keyOfStep = (mode, step) => (mode === "choose" ? ["1", "T", "2"][step] : String(step + 1));

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
  scale: { ...pairKeys("better"), ...digitKeys("scale") },
  fine: { ...pairKeys("better"), ...digitKeys("fine") },
  rank: { x: { choice: "both_bad", strength: null } },
};

/** @typedef {[keys: string[], textKey: string]} KeyMapRow */

/** @type {Record<Mode, KeyMapRow[]>} */
const KEY_MAP = {
  choose: [
    [["1", "A", "←"], "compare.verdict.a"], [["2", "B", "→"], "compare.verdict.b"], [["T"], "compare.help.tie"], [["X"], "compare.verdict.both_bad"],
  ],
  scale: [
    [["1"], "compare.verdict.a_significantly"], [["2", "A", "←"], "compare.verdict.a"], [["3", "T"], "compare.help.tie"],
    [["4", "B", "→"], "compare.verdict.b"], [["5"], "compare.verdict.b_significantly"], [["X"], "compare.verdict.both_bad"],
  ],
  fine: [
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

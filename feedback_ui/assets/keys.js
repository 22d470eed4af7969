// The keys of each way of judging: what they do, and how the key map shows them.

const STRENGTHS = ["significantly", "better", "slightly", "negligibly"];

// The scale from left to right; the digits 1 to 9 stand in the same order.
const SCALE = [
  ...STRENGTHS.map((strength) => ({ choice: "a", strength })),
  { choice: "tie", strength: null },
  ...STRENGTHS.toReversed().map((strength) => ({ choice: "b", strength })),
];

const PAIR_KEYS = {
  a: { choice: "a" }, arrowleft: { choice: "a" }, b: { choice: "b" }, arrowright: { choice: "b" }, t: { choice: "tie" }, x: { choice: "both_bad" },
};

const CHOICE_KEYS = {
  choose: { ...PAIR_KEYS, 1: { choice: "a" }, 2: { choice: "b" } },
  scale: {
    // Without a digit it is the plain step of the scale.
    ...Object.fromEntries(Object.entries(PAIR_KEYS).map(([key, said]) => [key, "ab".includes(said.choice) ? { ...said, strength: "better" } : said])),
    ...Object.fromEntries(SCALE.map((said, i) => [i + 1, said])),
  },
  rank: { x: { choice: "both_bad" } },
};

const KEY_MAP = {
  choose: [
    [["1", "A", "←"], "compare.says.a"], [["2", "B", "→"], "compare.says.b"], [["T"], "compare.help.tie"], [["X"], "compare.says.both_bad"],
  ],
  scale: [
    [["1", "–", "4"], "compare.help.scale_a"], [["5", "T"], "compare.help.tie"], [["6", "–", "9"], "compare.help.scale_b"],
    [["A", "←"], "compare.says.a"], [["B", "→"], "compare.says.b"], [["X"], "compare.says.both_bad"],
  ],
  rank: [
    [["1", "–", "9"], "rank.help.digit"], [["="], "rank.help.equals"], [["0"], "rank.help.rest"], [["⌫"], "rank.help.back"],
    [["↑", "↓"], "rank.help.arrows"], [["Enter"], "rank.help.save"], [["X"], "compare.says.all_bad"],
  ],
};

// Rows of the key map for what is on the screen.
function keyMap(mode, { asks, correcting, guided }) {
  const rows = [...KEY_MAP[mode]];
  if (asks.aspects.length) rows.push([["1", "–", String(Math.min(asks.scale, 9))], "compare.help.rate"]);
  if (asks.rationale !== "off") rows.push([["R"], "compare.help.reason"]);
  if (asks.ideal) rows.push([["E"], "compare.help.ideal"]);
  if (asks.flags) rows.push([["F"], "compare.help.flag"]);
  if (guided) rows.push([["G"], "compare.help.guidelines"]);
  rows.push([["Ctrl", "Enter"], "compare.help.save"], [["S"], "compare.help.skip"]);
  if (!correcting) rows.push([["U"], "compare.help.undo"]);
  rows.push([["Esc"], "compare.help.escape"], [["?"], "compare.help.help"]);
  return rows.map(([keys, text]) => make(
    "div", {},
    make("dt", {}, keys.map((key) => (key === "–" ? "–" : make("kbd", {}, key)))),
    make("dd", {}, t(text)),
  ));
}

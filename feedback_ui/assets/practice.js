// @ts-check
// The practice comparison of an annotator's first visit: two made-up answers in the form that judges real ones, and a word about the
// choice. Nothing of it is sent to the server. The browser remembers that it was done or skipped.

import { byTestId } from "./dom.js";
import { t } from "./i18n.js";
import { describeJudgment } from "./judging_form.js";
import { preferences } from "./preferences.js";

/** @typedef {import("./types.js").ComparisonView} ComparisonView */

const DONE = "practice";

/** @param {string} text a text without markup @returns {string} */
function paragraph(text) {
  const element = document.createElement("p");
  element.textContent = text;
  return element.outerHTML;
}

/** The made-up comparison, in the way of judging that the project asks for. @param {ComparisonView} real @returns {ComparisonView} */
function comparison({ inputs }) {
  return {
    state: "comparison",
    presentation_id: "",
    kind: t("compare.practice.kind"),
    turns: [{ role: "user", speaker: "", html: paragraph(t("compare.practice.prompt")) }],
    answers: [paragraph(t("compare.practice.a")), paragraph(t("compare.practice.b"))],
    cut_off: [false, false],
    inputs: { ...inputs, aspects: [], rationale: "off", ideal: false, flags: false },
    count: "",
    guidelines: null,
    practice: true,
  };
}

/**
 * @param {HTMLElement} root
 * @param {import("./judging_form.js").JudgingForm} form
 */
export function makePractice(root, form) {
  const box = byTestId(root, "practice");
  const text = byTestId(box, "practice-text");
  const button = byTestId(box, "end-practice");

  /** @param {string} message @param {string} next what the button does */
  function say(message, next) {
    text.textContent = message;
    button.textContent = next;
    form.announce(message);
  }

  return {
    /** @param {ComparisonView} real */
    isDue: (real) => real.practice && preferences.get(DONE) !== "done",
    /** @param {ComparisonView} real the comparison that waits meanwhile */
    start(real) {
      form.render(comparison(real));
      box.hidden = false;
      button.classList.remove("rl-primary");
      say(t("compare.practice.intro"), t("compare.practice.skip"));
    },
    /** @param {import("./types.js").Judgment} judgment */
    judge(judgment) {
      const key = judgment.choice === "a" ? "compare.practice.likely" : "compare.practice.unlikely";
      const said = t(key, { choice: describeJudgment(judgment, 2) });
      form.closeSkip();
      button.classList.add("rl-primary");
      say(`${said} ${t("compare.practice.more")}`, t("compare.practice.end"));
      box.scrollIntoView({ block: "nearest" });
      button.focus({ preventScroll: true });
    },
    end() {
      preferences.set(DONE, "done");
      box.hidden = true;
    },
  };
}

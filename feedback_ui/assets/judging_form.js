// @ts-check
// The judging form: one comparison, its inputs, and the keys. It makes a judgment and hands it to `submit`; it does not
// know how judgments are sent. Compare and History have one each.

import { setPlace } from "./addresses.js";
import { answerCard, turnElement } from "./cards.js";
import { makeChoiceBar } from "./choice_bar.js";
import { makeDetails } from "./details.js";
import { byTestId, closest, find, findAll, isTyping, showMessage, targetOf } from "./dom.js";
import { makeFlags } from "./flags.js";
import { t } from "./i18n.js";
import { CHOICE_KEYS, keyMap } from "./keys.js";
import { preferences } from "./preferences.js";
import { makeRanking } from "./rank.js";
import { makeSkipForm } from "./skip_form.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").ComparisonView} ComparisonView */
/** @typedef {import("./types.js").Draft} Draft */
/** @typedef {import("./types.js").Judgment} Judgment */
/** @typedef {import("./types.js").Mode} Mode */
/** @typedef {import("./types.js").Slot} Slot */

/** For so long a new comparison takes no input: the second half of a double click, or a bouncing key, must not judge it. */
export const SETTLE_MS = 250;

const EXCERPT_CHARACTERS = 120;

const NO_CHOICE = Object.freeze(/** @type {Answer} */ ({ choice: null, strength: null }));

/** The way of judging two answers, by the steps of strength for each. */
const PAIR_MODES = /** @type {Record<number, Mode>} */ ({ 0: "choose", 2: "scale", 4: "fine" });

/** The actions of the form's letters. */
const LETTERS = /** @type {Record<string, string>} */ ({ s: "skip", u: "undo", r: "reason", e: "ideal", f: "flag" });

/**
 * A judgment in the reader's words, for the note and the live region.
 * @param {{ choice: Judgment["choice"], strength?: Answer["strength"] }} judgment
 * @param {number} count how many answers there are
 */
export function describeJudgment({ choice, strength }, count) {
  if (choice === "skip") return t("compare.verdict.skip");
  if (choice === "rank") return t("rank.announce.saved");
  if (choice === "both_bad" && count > 2) return t("compare.verdict.all_bad");
  return t(`compare.verdict.${choice}${strength ? `_${strength}` : ""}`);
}

/** @typedef {ReturnType<typeof makeJudgingForm>} JudgingForm */

/**
 * @param {HTMLElement} root
 * @param {object} options
 * @param {(judgment: Judgment) => void} options.submit
 * @param {() => void} options.changed called after every input
 * @param {boolean} [options.correcting] whether the form corrects an earlier judgment
 * @param {() => void} [options.undo]
 * @param {() => boolean} [options.hasGuidelines]
 */
export function makeJudgingForm(root, { submit, changed, correcting = false, undo = () => {}, hasGuidelines = () => false }) {
  const actions = find(root, ".rl-actions");
  const help = byTestId(root, "help", HTMLDialogElement);
  /** @type {ComparisonView | null} */
  let view = null;
  // Before the first comparison has arrived, the bar is as it was last time, so that nothing moves then.
  const lastMode = preferences.get("mode") ?? "";
  let mode = /** @type {Mode} */ (lastMode in CHOICE_KEYS ? lastMode : "scale");
  /** @type {Answer} */
  let answer = NO_CHOICE;
  let enabled = false;

  /** @param {Slot} slot */
  const letterOf = (slot) => (mode === "rank" ? String(slot + 1) : "AB"[slot]);
  /** @param {Slot} slot */
  const nameOf = (slot) => t("compare.answer_n", { name: letterOf(slot) });

  function onInput() {
    showMissing("");
    renderSaveButton();
    renderRated();
    changed();
  }

  const bar = makeChoiceBar(actions, { correcting });
  const skipForm = makeSkipForm(root, actions, { submit: skip, isEnabled: () => enabled });
  const flags = makeFlags(root, { changed: onInput, nameOf });
  const details = makeDetails(root, { changed: onInput, nameOf });
  const ranking = makeRanking(root, {
    changed() {
      answer = NO_CHOICE;
      bar.renderChoice(answer);
      onInput();
    },
    announce,
    isEnabled: () => enabled,
  });

  // ---- rendering

  /** Whether a choice alone does not submit the judgment. */
  function needsSave() {
    return mode === "rank" || correcting || (view !== null && details.isRequired());
  }

  function buildBar() {
    bar.build({ mode, needsSave: needsSave(), enabled });
  }

  /** The save button of a ranking tells how much of it would be saved. */
  function renderSaveButton() {
    if (mode !== "rank" || !view) return;
    const all = view.answers.length;
    const ranked = all - ranking.unranked().length;
    const isWhole = answer.choice === "both_bad" || ranked === all || ranked < 2;
    const text = isWhole ? t(correcting ? "compare.save_correction" : "rank.save") : t("rank.save_partial", { ranked, all });
    bar.setSaveText(text);
  }

  /** How many of the required ratings are there. */
  function renderRated() {
    if (!view) return;
    const judged = judgedSlots();
    const { rated, all } = details.rated(judged.length ? judged : [...view.answers.keys()]);
    bar.setRated(all ? t("compare.rated", { count: all, rated, all }) : "");
  }

  /** @param {string} message */
  function showMissing(message) {
    showMessage(byTestId(root, "missing"), message);
  }

  /**
   * Shows what happened to a judgment that was not saved.
   * @param {string} message
   * @param {string} [stored] the judgment that the store has instead, which *Correct it* opens
   */
  function showNotice(message, stored) {
    const box = byTestId(root, "notice");
    box.hidden = !message;
    find(box, "span").textContent = message;
    const button = byTestId(box, "correct-it");
    button.hidden = stored === undefined;
    button.dataset.judgment = stored ?? "";
  }

  /** @param {string} html @param {Slot} slot */
  function card(html, slot) {
    const isRanked = mode === "rank";
    const other = isRanked ? null : { slot: 1 - slot, letter: letterOf(1 - slot) };
    return answerCard(html, slot, { letter: letterOf(slot), name: nameOf(slot), isCut: view?.cut_off[slot] ?? false, hasGrip: isRanked, other });
  }

  /** @param {Mode} next */
  function setMode(next) {
    mode = next;
    root.dataset.mode = mode;
  }

  /** @param {ComparisonView} next @param {Draft | null} [draft] */
  function render(next, draft = null) {
    view = next;
    setMode(view.answers.length > 2 ? "rank" : PAIR_MODES[view.inputs.strength]);
    preferences.set("mode", mode);
    answer = NO_CHOICE;
    skipForm.close();
    showMissing("");
    byTestId(root, "prompt-kind").textContent = view.kind;
    find(root, ".rl-turns").replaceChildren(...view.turns.map(turnElement));
    const answers = find(root, ".rl-answers");
    answers.dataset.count = String(view.answers.length);
    answers.replaceChildren(...view.answers.map(card));
    flags.render(view);
    details.render(view);
    ranking.render(view, findAll(root, ".rl-answer > .rl-text").map((text) => (text.textContent ?? "").trim().slice(0, EXCERPT_CHARACTERS)));
    buildBar();
    if (draft) restore(draft);
    bar.renderChoice(answer);
    renderSaveButton();
    renderRated();
  }

  /** @param {Draft} draft */
  function restore(draft) {
    ranking.restore(draft.tiers);
    details.restore(draft);
    flags.restore(draft.flags);
    if (draft.choice && draft.choice !== "rank" && draft.choice !== "skip") {
      answer = { choice: draft.choice, strength: draft.strength ?? null };
    }
  }

  /** @param {boolean} ready @param {boolean} [mayUndo] */
  function setEnabled(ready, mayUndo = ready) {
    enabled = ready;
    const buttons = "[data-choice], [data-act=skip], [data-act=save], [data-reason], [data-testid=skip-submit]";
    for (const button of findAll(root, buttons, HTMLButtonElement)) button.disabled = !ready;
    for (const button of findAll(root, "[data-act=undo]", HTMLButtonElement)) button.disabled = !mayUndo;
  }

  // ---- the judgment

  function isRanking() {
    return mode === "rank" && answer.choice === null;
  }

  /** The answers that the judgment is about. */
  function judgedSlots() {
    const all = [...(view?.answers.keys() ?? [])];
    return isRanking() ? all.filter((slot) => !ranking.unranked().includes(slot)) : all;
  }

  /** @returns {Judgment} */
  function judgment() {
    /** @type {Pick<Judgment, "choice" | "strength" | "tiers">} */
    const choice = isRanking() ? { choice: "rank", tiers: ranking.tiers() } : answer;
    return { ...choice, ...details.value(judgedSlots()), flags: flags.value() };
  }

  /** What the judgment lacks, if anything. @returns {import("./types.js").Missing | null} */
  function missing() {
    if (isRanking() && judgedSlots().length < 2) return { message: t("rank.too_few"), focus: () => root.focus({ preventScroll: true }) };
    if (!answer.choice && !isRanking()) {
      return { message: t("compare.missing_choice"), focus: bar.focusFirst };
    }
    return details.missing(judgedSlots());
  }

  /** Submits a complete judgment; otherwise leads to what is missing. */
  function finish() {
    const lack = missing();
    if (!lack) return submit(judgment());
    showMissing(lack.message);
    lack.focus();
    announce(lack.message);
  }

  /** @param {Answer} chosen */
  function choose(chosen) {
    if (!enabled || !view) return;
    answer = chosen;
    bar.renderChoice(answer);
    renderSaveButton();
    showMissing("");
    changed();
    if (!correcting) return finish();
    announce(describeJudgment(answer, view.answers.length));
    const lack = missing();
    if (lack) lack.focus();
    else byTestId(root, "save").focus({ preventScroll: true });
  }

  function save() {
    if (enabled) finish();
  }

  /** Enter on an incomplete ranking asks first: it moves the focus to the button that tells what would be saved. */
  function saveByKey() {
    const left = ranking.unranked().length;
    if (!isRanking() || !left || judgedSlots().length < 2) return save();
    byTestId(root, "save").focus({ preventScroll: true });
    const message = t("rank.partial", { count: left });
    showMissing(message);
    announce(message);
  }

  /** Enter saves where the save button stands, unless the focus is on something that Enter works on. */
  const savesByEnter = (/** @type {Element} */ target) => needsSave() && !target.closest("button, a, summary");

  /** @param {string} reason */
  function skip(reason) {
    if (enabled) submit({ choice: "skip", reason, rationale: details.value([]).rationale, flags: flags.value() });
  }

  // ---- events

  /** @type {Record<string, (button?: HTMLElement) => void>} The actions of buttons, by `data-act`; pages add their own. */
  const acts = {
    help: toggleHelp,
    skip: skipForm.open,
    other: skipForm.openOther,
    "close-skip": () => {
      skipForm.close();
      root.focus({ preventScroll: true });
    },
    undo,
    save,
    flag: (button) => {
      if (view?.inputs.flags) flags.open(button?.dataset.target);
    },
    reason: () => {
      if (view) details.openRationale();
    },
    ideal: () => {
      if (view) details.openIdeal(bestSlot());
    },
    "drop-ideal": details.dropIdeal,
    // Where the answers are stacked, the other one may be a screen away.
    jump: (button) => find(root, `.rl-answer[data-slot="${button?.dataset.target}"]`).scrollIntoView({ block: "start" }),
    correct: (button) => setPlace("history", button?.dataset.judgment ?? null, { go: true }),
  };

  /** The answer that an ideal answer starts from: the best one so far. */
  function bestSlot() {
    if (mode === "rank") return ranking.tiers()[0]?.[0] ?? 0;
    return answer.choice === "b" ? 1 : 0;
  }

  function toggleHelp() {
    if (help.open) return help.close();
    find(help, "dl").replaceChildren(...keyMap(mode, { inputs: view?.inputs, correcting, needsSave: needsSave(), hasGuidelines: hasGuidelines() }));
    help.showModal();
  }

  /** @param {string} message */
  function announce(message) {
    byTestId(root, "live").textContent = message;
  }

  /** Runs an action for a key, which is handled then. @param {() => void} act */
  function handled(act) {
    act();
    return true;
  }

  /**
   * True if the key was handled.
   * @param {KeyboardEvent} event
   * @param {string} key the key in lower case
   */
  function onKey(event, key) {
    const target = targetOf(event);
    const withControl = event.ctrlKey || event.metaKey;
    const skipping = skipForm.isOpen();
    if (key === "escape" && skipping) return handled(acts["close-skip"]);
    if (withControl && key === "enter" && !help.open && !flags.isOpen()) return handled(save);
    const inField = isTyping(target) || target.closest(".rl-aspects") !== null;
    if (key === "escape" && inField && root.contains(target)) return handled(() => root.focus({ preventScroll: true }));
    if (isTyping(target) || event.altKey) return false;
    if (withControl) return key === "z" && !event.shiftKey && !help.open && !correcting && handled(undo);
    if (key === "?") return handled(toggleHelp);
    if ((event.shiftKey && key !== "=") || help.open || flags.isOpen()) return false;
    if (skipping) return /^[1-4]$/.test(key) && handled(() => skipForm.chooseByNumber(Number(key)));
    if (!view || root.dataset.state === "empty") return key === "u" && !correcting && handled(undo);
    return onJudgingKey(event, key, target);
  }

  /** @param {KeyboardEvent} event @param {string} key @param {Element} target */
  function onJudgingKey(event, key, target) {
    if (details.onKey(event, key)) return true;
    // Arrows move along tabs, ratings and sliders, outside of the form and in its inputs.
    const outside = target !== document.body && !root.contains(target);
    if (key.startsWith("arrow") && (outside || target.closest("input"))) return false;
    if (mode === "rank" && ranking.onKey(event, key)) return true;
    if (key === "enter") return !outside && savesByEnter(target) && handled(saveByKey);
    if (key === " " && mode === "rank") return !outside && savesByEnter(target) && !target.closest("input") && handled(saveByKey);
    const chosen = CHOICE_KEYS[mode][key];
    if (chosen) return handled(() => choose(chosen));
    const act = LETTERS[key];
    if (!act || (act === "undo" && correcting)) return false;
    return handled(acts[act]);
  }

  root.addEventListener("click", (event) => {
    const button = closest(targetOf(event), "button");
    if (!button || event.detail > 1) return;
    const { choice, strength = null, reason, act = "" } = button.dataset;
    if (choice) choose(/** @type {Answer} */ ({ choice, strength }));
    else if (reason) skip(reason);
    else acts[act]?.(button);
  });
  // What gets the focus must not stay behind the bar.
  find(root, ".rl-content").addEventListener("focusin", (event) => targetOf(event).scrollIntoView({ block: "nearest" }));

  setMode(mode);
  buildBar();

  return {
    render,
    setEnabled,
    closeSkip: skipForm.close,
    announce,
    showNotice,
    onKey,
    acts,
    /** Everything that was begun, to restore it after a reload. @returns {Draft} */
    draft: () => ({ ...answer, tiers: ranking.tiers(), ...details.draft(), flags: flags.value() }),
    end: ranking.end,
  };
}

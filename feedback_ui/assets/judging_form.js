// The judging form: one comparison, what may be said about it, and the bar of buttons. It gathers an act and hands it
// to `submit`; it knows nothing of how acts are sent. Compare and History have one each.

// The second half of a double click or a bouncing key must not judge the comparison that has just appeared.
const SETTLE_MS = 250;

// An act in the reader's words, for the note and for the live region.
function saysOf(act, count) {
  if (act.choice === "skip") return t("compare.says.skip");
  if (act.choice === "rank") return t("rank.says_saved");
  if (act.choice === "both_bad" && count > 2) return t("compare.says.all_bad");
  return t(`compare.says.${act.choice}${act.strength ? `_${act.strength}` : ""}`);
}

function makeJudgingForm(root, { submit, changed, correcting = false, undo = () => {}, guided = () => false }) {
  const find = (selector) => root.querySelector(selector);
  const byTest = (name) => find(`[data-testid="${name}"]`);
  const actions = find(".rl-actions");
  let view = null;
  let mode = null; // choose: two answers; scale: two, with strength; rank: three to nine
  let said = { choice: null, strength: null };
  let enabled = false;

  const nameOf = (slot) => (mode === "rank" ? t("compare.answer_n", { name: slot + 1 }) : t("compare.answer_n", { name: "AB"[slot] }));
  const touched = () => { showLack(""); offerSave(); changed(); };
  const flags = makeFlags(root, { changed: touched, nameOf });
  const details = makeDetails(root, { changed: touched, nameOf });
  const rank = makeRank(root, {
    changed: () => { said = { choice: null, strength: null }; showChoice(); touched(); },
    announce,
    isEnabled: () => enabled,
  });

  // ---- the bar

  const QUIET = "rl-button rl-secondary";

  function choiceButton({ choice, strength = null }, text, key, testid, kind = "", label = null) {
    return makeButton(text, {
      key, class: `rl-button ${kind}`, "data-choice": choice, "data-strength": strength, testid, disabled: !enabled,
      "aria-label": label, "aria-pressed": "false",
    });
  }

  function scaleButtons() {
    return SCALE.map(({ choice, strength }, i) => {
      const key = String(i + 1);
      if (choice === "tie") return choiceButton({ choice }, t("compare.tie"), key, "choose-tie", "rl-strength rl-strength-tie");
      // "Better" is what is said without a strength, so it goes by the plain name.
      const testid = strength === "better" ? `choose-${choice}` : `choose-${choice}-${strength}`;
      return choiceButton(
        { choice, strength }, t(`compare.strength.${strength}`), key, testid, `rl-strength rl-strength-${choice}`, t(`compare.says.${choice}_${strength}`),
      );
    });
  }

  function commonButtons() {
    const skip = makeButton(t("compare.skip"), { key: "S", class: QUIET, "data-act": "skip", testid: "skip", disabled: true });
    if (correcting) return [skip];
    return [skip, makeButton(t("compare.undo"), { key: "U", class: QUIET, "data-act": "undo", testid: "undo", disabled: true })];
  }

  function saveButton() {
    const text = correcting ? t("compare.save_correction") : t("compare.save");
    return makeButton(text, { key: mode === "rank" ? "Enter" : "Ctrl Enter", shortcut: "Control+Enter", class: "rl-button rl-primary rl-save-button", "data-act": "save", testid: "save", disabled: true });
  }

  function needsSave() {
    return mode === "rank" || correcting || (view !== null && details.isRequired());
  }

  function buildBar() {
    const wanted = `${mode} ${needsSave()}`;
    if (actions.dataset.built === wanted) return;
    actions.dataset.built = wanted;
    actions.dataset.mode = mode;
    actions.classList.toggle("rl-with-save", needsSave());
    const save = needsSave() ? [saveButton()] : [];
    const bad = choiceButton({ choice: "both_bad" }, t(mode === "rank" ? "compare.all_bad" : "compare.both_bad"), "X", "choose-both-bad", "rl-secondary");
    if (mode === "rank") return actions.replaceChildren(make("div", { class: "rl-button-row" }, bad, ...commonButtons(), ...save));
    if (mode === "scale") {
      const ends = ["a", "b"].map((choice) => make("p", { class: `rl-strength-end rl-strength-end-${choice}`, "aria-hidden": "true" }, t(`compare.says.${choice}`)));
      const scale = make("div", { class: "rl-strength-scale" }, ends, scaleButtons());
      return actions.replaceChildren(scale, make("div", { class: "rl-button-row" }, bad, ...commonButtons(), ...save));
    }
    actions.replaceChildren(
      choiceButton({ choice: "a" }, t("compare.says.a"), "1", "choose-a", "rl-primary"),
      choiceButton({ choice: "b" }, t("compare.says.b"), "2", "choose-b", "rl-primary"),
      choiceButton({ choice: "tie" }, t("compare.tie"), "T", "choose-tie"),
      bad, ...commonButtons(), ...save,
    );
  }

  function showChoice() {
    for (const button of actions.querySelectorAll("[data-choice]")) {
      const on = button.dataset.choice === said.choice && (button.dataset.strength ?? null) === said.strength;
      button.setAttribute("aria-pressed", String(on));
    }
  }

  // What the save button would save, in its own words.
  function offerSave() {
    const save = byTest("save");
    if (!save || mode !== "rank") return;
    const left = rank.unranked().length;
    const ranked = view.answers.length - left;
    save.firstChild.textContent = said.choice === "both_bad" || left === 0 || ranked < 2
      ? t(correcting ? "compare.save_correction" : "rank.save") : t("rank.save_partial", { ranked, all: view.answers.length });
  }

  function showLack(text) {
    const box = byTest("missing");
    box.hidden = !text;
    box.textContent = text;
  }

  // ---- painting

  function card(slot) {
    const name = mode === "rank" ? String(slot + 1) : "AB"[slot];
    const text = make("div", { class: "rl-text", dir: "auto" });
    fillProse(text, view.answers[slot], t("compare.empty_answer"));
    return make(
      "article", { class: "rl-answer", "data-slot": slot, testid: `answer-${name.toLowerCase()}`, "aria-label": nameOf(slot) },
      make(
        "header", { class: "rl-answer-head" },
        make("h2", { "data-grip": mode === "rank" ? slot : null }, name),
        make("span", { class: "rl-flags", "data-flags": slot }),
        make("span", { class: "rl-place-buttons" }),
      ),
      text,
      make("div", { class: "rl-aspects" }),
    );
  }

  function turn({ role, speaker, html }) {
    const text = make("div", { class: "rl-text", dir: "auto" });
    fillProse(text, html, t("compare.empty_turn"));
    return make("div", { class: `rl-turn rl-turn-${role}` }, speaker ? make("p", { class: "rl-role" }, speaker) : null, text);
  }

  function be(wanted) {
    mode = wanted;
    root.dataset.mode = mode;
  }

  function paint(next, draft = null) {
    view = next;
    be(view.answers.length > 2 ? "rank" : view.asks.strength ? "scale" : "choose");
    memory.set("mode", mode);
    said = { choice: null, strength: null };
    closeSkip();
    showLack("");
    byTest("prompt-kind").textContent = view.kind;
    find(".rl-turns").replaceChildren(...view.turns.map(turn));
    find(".rl-answers").replaceChildren(...view.answers.keys().map(card));
    flags.paint(view);
    details.paint(view);
    rank.paint(view, [...root.querySelectorAll(".rl-answer > .rl-text")].map((text) => text.textContent.trim().slice(0, 120)));
    buildBar();
    if (draft) restore(draft);
    showChoice();
    offerSave();
  }

  function restore(draft) {
    rank.restore(draft.tiers);
    details.restore(draft);
    flags.restore(draft.flags);
    // A mark that no Save button would send is only in the way.
    if (needsSave() && draft.choice && draft.choice !== "rank" && draft.choice !== "skip") {
      said = { choice: draft.choice, strength: draft.strength ?? null };
    }
  }

  function setEnabled(ready, mayUndo = ready) {
    enabled = ready;
    for (const button of root.querySelectorAll("[data-choice], [data-act=skip], [data-act=save], [data-reason], [data-testid=skip-submit]")) {
      button.disabled = !ready;
    }
    if (byTest("undo")) byTest("undo").disabled = !mayUndo;
  }

  // ---- what is said

  function isRanking() {
    return mode === "rank" && said.choice === null;
  }

  // Slots that the choice speaks about.
  function judgedSlots() {
    const all = [...view.answers.keys()];
    return isRanking() ? all.filter((slot) => !rank.unranked().includes(slot)) : all;
  }

  function act() {
    const choice = isRanking() ? { choice: "rank", tiers: rank.tiers() } : { choice: said.choice, strength: said.strength };
    return { ...choice, ...details.said(judgedSlots()), flags: flags.said() };
  }

  function missing() {
    if (isRanking() && judgedSlots().length < 2) return { says: t("rank.too_few"), lead: () => root.focus({ preventScroll: true }) };
    if (!said.choice && !isRanking()) {
      return { says: t("compare.missing_choice"), lead: () => actions.querySelector("[data-choice]").focus() };
    }
    return details.missing(judgedSlots());
  }

  // Sends what is complete; otherwise leads to what is missing.
  function finish() {
    const lack = missing();
    if (!lack) return submit(act());
    showLack(lack.says);
    lack.lead();
    announce(lack.says);
  }

  function choose({ choice, strength = null }) {
    if (!enabled) return;
    said = { choice, strength };
    showChoice();
    offerSave();
    showLack("");
    changed();
    if (!correcting) return finish();
    announce(saysOf(said, view.answers.length));
    (missing()?.lead ?? (() => byTest("save").focus({ preventScroll: true })))();
  }

  function save() {
    if (enabled) finish();
  }

  // Enter on a part of a ranking asks once more, by leading to the button that says what it would do.
  function saveByKey() {
    if (isRanking() && rank.unranked().length && judgedSlots().length >= 2) {
      byTest("save").focus({ preventScroll: true });
      const left = t("rank.partial", { count: rank.unranked().length });
      showLack(left);
      announce(left);
      return;
    }
    save();
  }

  // ---- the reason for skipping

  function openSkip() {
    if (!enabled) return;
    find(".rl-skip").hidden = false;
    actions.hidden = true;
    find(".rl-skip [data-reason]").focus({ preventScroll: true });
  }

  function closeSkip() {
    find(".rl-skip").hidden = true;
    find(".rl-skip-other").hidden = true;
    actions.hidden = false;
    byTest("skip-text").value = "";
  }

  function otherReason() {
    find(".rl-skip-other").hidden = false;
    byTest("skip-text").focus();
  }

  function skip(reason) {
    if (enabled) submit({ choice: "skip", reason, rationale: details.said([]).rationale, flags: flags.said() });
  }

  function pickReason(number) {
    const reasons = [...find(".rl-skip").querySelectorAll("[data-reason]")];
    if (reasons[number - 1]) skip(reasons[number - 1].dataset.reason);
    else if (number === reasons.length + 1) otherReason();
  }

  // ---- hands

  const acts = {
    help: toggleHelp,
    skip: openSkip,
    other: otherReason,
    "close-skip": () => { closeSkip(); root.focus({ preventScroll: true }); },
    undo,
    save,
    flag: (button) => openFlags(button?.dataset.target),
    reason: () => { if (view) details.openReason(); },
    ideal: () => { if (view) details.openIdeal(idealStart()); },
    "drop-ideal": details.dropIdeal,
  };

  function openFlags(target) {
    if (!view?.asks.flags) return;
    flags.open(target === undefined ? undefined : target === PROMPT ? PROMPT : Number(target));
  }

  // A better answer begins from the best one that was chosen.
  function idealStart() {
    const best = mode === "rank" ? rank.tiers()[0]?.[0] : { a: 0, b: 1 }[said.choice];
    return best ?? 0;
  }

  function toggleHelp() {
    const help = byTest("help");
    if (help.open) return help.close();
    const asks = view?.asks ?? { aspects: [], rationale: "off", ideal: false, flags: false };
    help.querySelector("dl").replaceChildren(...keyMap(mode ?? "choose", { asks, correcting, guided: guided() }));
    help.showModal();
  }

  function announce(message) {
    byTest("live").textContent = message;
  }

  const LETTERS = { s: "skip", u: "undo", r: "reason", e: "ideal", f: "flag" };

  // True if the key meant something here.
  function key(event, pressed) {
    const skipping = !find(".rl-skip").hidden;
    const typing = isTyping(event.target);
    if (pressed === "escape" && skipping) return acts["close-skip"](), true;
    if ((event.ctrlKey || event.metaKey) && pressed === "enter" && !byTest("help").open && !flags.isOpen()) return save(), true;
    if (pressed === "escape" && (typing || event.target.closest?.(".rl-aspects")) && root.contains(event.target)) return root.focus({ preventScroll: true }), true;
    if (typing || event.altKey) return false;
    if (event.ctrlKey || event.metaKey) {
      if (pressed !== "z" || event.shiftKey || byTest("help").open || correcting) return false;
      undo();
      return true;
    }
    if (pressed === "?") return toggleHelp(), true;
    if ((event.shiftKey && pressed !== "=") || byTest("help").open || flags.isOpen()) return false;
    if (skipping) return /^[1-4]$/.test(pressed) && (pickReason(Number(pressed)), true);
    if (!view || root.dataset.state === "empty") return pressed === "u" && !correcting && (undo(), true);
    if (details.key(event, pressed)) return true;
    // Elsewhere arrows have a work of their own: they walk along tabs and ratings, and move sliders.
    const elsewhere = event.target !== document.body && !root.contains(event.target);
    if (pressed.startsWith("arrow") && (elsewhere || event.target.closest("input"))) return false;
    if (mode === "rank" && rank.key(event, pressed)) return true;
    if (mode === "rank" && (pressed === "enter" || pressed === " ")) {
      if (elsewhere || event.target.closest?.("button, a, input, label")) return false;
      saveByKey();
      return true;
    }
    const choice = CHOICE_KEYS[mode][pressed];
    if (choice) return choose({ strength: null, ...choice }), true;
    const name = LETTERS[pressed];
    if (!name || (name === "undo" && correcting)) return false;
    acts[name]();
    return true;
  }

  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || event.detail > 1) return;
    if (button.dataset.choice) choose({ choice: button.dataset.choice, strength: button.dataset.strength ?? null });
    else if (button.dataset.reason) skip(button.dataset.reason);
    else acts[button.dataset.act]?.(button);
  });
  // What gets the focus comes out from behind the bar.
  find(".rl-content").addEventListener("focusin", ({ target }) => target.scrollIntoView({ block: "nearest" }));
  find(".rl-skip").addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = byTest("skip-text").value.trim();
    if (reason) skip(reason);
  });

  // Before the first comparison has come the bar stands as it stood last, so that nothing moves then.
  be(memory.get("mode") in CHOICE_KEYS ? memory.get("mode") : "scale");
  buildBar();

  return {
    paint,
    setEnabled,
    closeSkip,
    announce,
    key,
    acts,
    restore: (draft) => { restore(draft); showChoice(); offerSave(); },
    count: () => view?.answers.length ?? 0,
    // All that was begun, to be found again after a reload.
    draft: () => ({ choice: said.choice, strength: said.strength, tiers: rank.tiers(), ...details.draft(), flags: flags.said() }),
    end: rank.end,
  };
}

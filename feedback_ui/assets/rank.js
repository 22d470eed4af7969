// @ts-check
// Ranking three to nine answers into tiers, by digit, by tap or by drag: the panel of tiers, and the buttons on the answers.

import { closest, find, findAll, make, targetOf } from "./dom.js";
import { makeDraggable } from "./drag.js";
import { t } from "./i18n.js";
import * as steps from "./tiers.js";

/** @typedef {import("./types.js").Slot} Slot */
/** @typedef {import("./types.js").Tiers} Tiers */

/**
 * @param {HTMLElement} root
 * @param {{ changed: () => void, announce: (message: string) => void, isEnabled: () => boolean }} options
 */
export function makeRanking(root, { changed, announce, isEnabled }) {
  const panel = find(root, ".rl-ranking");
  const list = find(panel, ".rl-tier-list");
  const unrankedBox = find(panel, ".rl-unranked");
  const summary = find(panel, ".rl-ranking-summary");
  const narrow = window.matchMedia("(max-width: 900px)");
  /** @type {Tiers} */
  let tiers = [];
  /** @type {Tiers[]} The earlier steps, for Backspace. */
  let earlier = [];
  let count = 0;
  /** @type {string[]} */
  let excerpts = [];
  /** Whether the next digit shares the last place. */
  let joining = false;
  /** @type {Slot | null} The answer that was tapped: the next tap places it. */
  let picked = null;

  /** @param {Slot} slot */
  const number = (slot) => String(slot + 1);
  /** @param {number} index */
  const placeName = (index) => t(`rank.place.${index + 1}`);
  /** @param {Slot} slot */
  const tierOf = (slot) => tiers.findIndex((tier) => tier.includes(slot));
  const unranked = () => steps.unranked(tiers, count);

  /** @param {Tiers} next @param {Slot | null} [slot] the answer to announce */
  function setTiers(next, slot = null) {
    if (!isEnabled()) return;
    joining = false;
    picked = null;
    if (JSON.stringify(next) !== JSON.stringify(tiers)) {
      earlier.push(tiers);
      tiers = next.map((tier) => [...tier].sort((a, b) => a - b));
    }
    render();
    if (slot !== null) announce(describe(slot));
    changed();
  }

  /** Where an answer is and how many are left, for a screen reader. @param {Slot} slot */
  function describe(slot) {
    const left = unranked().length;
    return `${describePlace(slot)} ${left ? t("rank.announce.left", { count: left }) : t("rank.announce.all")}`;
  }

  /** @param {Slot} slot */
  function describePlace(slot) {
    const at = tierOf(slot);
    const answer = number(slot);
    if (at < 0) return t("rank.announce.out", { answer });
    const others = tiers[at].filter((other) => other !== slot).map(number);
    const place = placeName(at);
    return others.length ? t("rank.announce.tied", { answer, place, others: others.join(", ") }) : t("rank.announce.placed", { answer, place });
  }

  // ---- rendering

  /** @param {Slot} slot */
  function chip(slot) {
    const at = tierOf(slot);
    return make(
      "button",
      {
        type: "button", class: "rl-chip", "data-chip": slot, testid: `chip-${number(slot)}`, "aria-pressed": picked === slot ? "true" : "false",
        "aria-label": t(at < 0 ? "rank.chip_out" : "rank.chip", { answer: number(slot), place: at < 0 ? "" : placeName(at) }),
        "aria-describedby": "rl-ranking-help",
      },
      make("b", {}, number(slot)), make("span", {}, excerpts[slot]),
    );
  }

  /** @param {Slot[]} tier @param {number} index */
  function tierRow(tier, index) {
    return make(
      "li", { class: "rl-tier", "data-drop": "join", "data-index": index, testid: `tier-${index + 1}` },
      make("span", { class: "rl-drop-line", "data-drop": "before", "data-index": index, testid: `before-${index + 1}` }),
      make("span", { class: "rl-tier-place" }, placeName(index)),
      make("div", { class: "rl-chips" }, tier.map(chip)),
    );
  }

  /** The place that the next digit fills; none if every answer has a place of its own. */
  function nextRow() {
    if (tiers.length >= count) return null;
    return make(
      "li", { class: "rl-tier rl-next-tier", "data-drop": "before", "data-index": tiers.length, testid: "next-place" },
      make("span", { class: "rl-tier-place" }, joining ? "=" : placeName(tiers.length)),
      make("span", { class: "rl-next-tier-hint" }, nextHint()),
    );
  }

  function nextHint() {
    if (joining) return t("rank.joining", { place: placeName(tiers.length - 1) });
    return unranked().length ? t("rank.next_hint") : "";
  }

  /** @param {Slot} slot */
  function placeButtons(slot) {
    const at = tierOf(slot);
    const answer = number(slot);
    /** @param {string} testid @param {string} step @param {string} label @param {...import("./dom.js").Child} content */
    const button = (testid, step, label, ...content) => make(
      "button",
      {
        type: "button", class: `rl-place-button rl-place-button-${step}`, "data-rank": step, "data-slot": slot, testid: `${testid}-${answer}`,
        "aria-label": label,
      },
      ...content,
    );
    if (at >= 0) {
      const cross = make("span", { "aria-hidden": "true" }, "×");
      return [button("take", "take", t("rank.take", { answer, place: placeName(at) }), placeName(at), cross)];
    }
    const next = placeName(tiers.length);
    const place = button("place", "place", t("rank.put", { answer, place: next }), next);
    if (!tiers.length) return [place];
    const last = placeName(tiers.length - 1);
    return [button("tie", "join", t("rank.put_tied", { answer, place: last }), make("span", { "aria-hidden": "true" }, "="), last), place];
  }

  function summaryText() {
    return tiers.map((tier) => tier.map(number).join(" = ")).join(" › ") || t("rank.nothing_yet");
  }

  function render() {
    const focused = focusedControl();
    const next = nextRow();
    list.replaceChildren(...tiers.map(tierRow), ...(next ? [next] : []));
    unrankedBox.hidden = unranked().length === 0;
    find(unrankedBox, ".rl-chips").replaceChildren(...unranked().map(chip));
    panel.classList.toggle("rl-placing", picked !== null);
    find(panel, ".rl-ranking-summary-text").textContent = summaryText();
    root.dataset.ranked = String(tiers.flat().length);
    for (const card of findAll(root, ".rl-answer")) {
      const slot = Number(card.dataset.slot);
      find(card, ".rl-place-buttons").replaceChildren(...placeButtons(slot));
      card.classList.toggle("rl-ranked", tierOf(slot) >= 0);
    }
    if (focused) /** @type {HTMLElement | null} */ (root.querySelector(focused))?.focus({ preventScroll: true });
  }

  /** The selector of what takes the place of the focused chip or button once all are made anew. */
  function focusedControl() {
    const focused = document.activeElement && closest(document.activeElement, "[data-chip], [data-rank]");
    if (!focused || !root.contains(focused)) return null;
    const { chip: slot, slot: card } = focused.dataset;
    if (slot !== undefined) return `.rl-ranking-body [data-chip="${slot}"]`;
    return `[data-slot="${card}"][data-rank="take"], [data-slot="${card}"][data-rank="place"]`;
  }

  // ---- events

  /** @param {Slot} slot */
  function pick(slot) {
    if (!isEnabled()) return;
    picked = picked === slot ? null : slot;
    render();
    announce(picked === null ? describe(slot) : t("rank.picked", { answer: number(slot) }));
  }

  /** @param {string | undefined} step @param {Slot} slot */
  function takeStep(step, slot) {
    if (step === "place") setTiers(steps.place(tiers, slot), slot);
    else if (step === "join") setTiers(steps.join(tiers, slot), slot);
    else if (step === "take") setTiers(steps.take(tiers, slot), slot);
  }

  /** @param {MouseEvent} event */
  function onClick(event) {
    if (!count) return;
    const clicked = targetOf(event);
    const button = closest(clicked, "[data-rank]");
    if (button) {
      takeStep(button.dataset.rank, Number(button.dataset.slot));
      // After a click the keys of the page work; after Enter the button keeps the focus.
      if (event.detail) root.focus({ preventScroll: true });
      return;
    }
    const chipButton = closest(clicked, "[data-chip]");
    if (chipButton && (picked === null || picked === slotOf(chipButton))) return pick(slotOf(chipButton));
    const target = closest(clicked, "[data-drop]");
    if (target && picked !== null) setTiers(steps.drop(tiers, picked, dropOn(target)), picked);
  }

  /** @param {HTMLElement} target @returns {import("./tiers.js").Drop} */
  function dropOn(target) {
    return { kind: target.dataset.drop, index: Number(target.dataset.index) };
  }

  /** The slot of a chip or of an answer's handle. @param {HTMLElement} handle */
  function slotOf(handle) {
    return Number(handle.dataset.chip ?? handle.dataset.grip);
  }

  /** @param {KeyboardEvent} event @param {string} key */
  function onChipKey(event, key) {
    const chipButton = closest(targetOf(event), "[data-chip]");
    if (!chipButton) return false;
    const slot = slotOf(chipButton);
    if (key === "arrowup" || key === "arrowdown") {
      setTiers(tierOf(slot) < 0 ? steps.place(tiers, slot) : steps.move(tiers, slot, key === "arrowup" ? -1 : 1), slot);
      return true;
    }
    if (key !== "delete") return false;
    setTiers(steps.take(tiers, slot), slot);
    return true;
  }

  /** Goes one step back. */
  function stepBack() {
    const before = isEnabled() ? earlier.pop() : undefined;
    if (!before) return;
    setTiers(before);
    earlier.pop();
    announce(summaryText());
  }

  function toggleJoining() {
    joining = !joining;
    render();
    announce(joining ? t("rank.joining", { place: placeName(tiers.length - 1) }) : "");
  }

  /** @param {boolean} expanded */
  function setExpanded(expanded) {
    panel.classList.toggle("rl-expanded", expanded);
    summary.setAttribute("aria-expanded", String(expanded));
  }

  /** On a phone the tiers are in the bar at the bottom; elsewhere they are beside the answers. */
  function placePanel() {
    const container = find(root, narrow.matches ? ".rl-ranking-slot" : ".rl-sidebar");
    if (panel.parentElement !== container) container.prepend(panel);
  }

  function clearDropTarget() {
    for (const target of findAll(panel, ".rl-drop-target")) target.classList.remove("rl-drop-target");
  }

  root.addEventListener("click", onClick);
  summary.addEventListener("click", () => setExpanded(!panel.classList.contains("rl-expanded")));
  narrow.addEventListener("change", placePanel);
  placePanel();

  makeDraggable(root, {
    handles: ".rl-ranking [data-chip], [data-grip]",
    mayDrag: () => count > 0 && isEnabled(),
    previewOf: (handle) => make("div", {}, make("b", {}, number(slotOf(handle))), make("span", {}, excerpts[slotOf(handle)])),
    targetAt: (under) => closest(under, "[data-drop]"),
    started() {
      panel.classList.add("rl-placing");
      if (narrow.matches) setExpanded(true);
    },
    over(target) {
      clearDropTarget();
      target?.classList.add("rl-drop-target");
    },
    dropped: (handle, target) => setTiers(steps.drop(tiers, slotOf(handle), dropOn(target)), slotOf(handle)),
    ended() {
      clearDropTarget();
      render();
    },
  });

  return {
    /**
     * Shows a new comparison. Two answers are not ranked here: then the panel is hidden.
     * @param {import("./types.js").ComparisonView} view
     * @param {string[]} texts the beginning of each answer
     */
    render(view, texts) {
      count = view.answers.length > 2 ? view.answers.length : 0;
      tiers = [];
      earlier = [];
      joining = false;
      picked = null;
      excerpts = texts;
      panel.hidden = count === 0;
      setExpanded(false);
      if (count) render();
      else delete root.dataset.ranked;
    },
    /** @param {Tiers} [stored] */
    restore(stored) {
      if (!count || !stored) return;
      tiers = stored.map((tier) => [...tier]);
      render();
    },
    tiers: () => tiers.map((tier) => [...tier]),
    unranked,
    /**
     * True if the key was handled.
     * @param {KeyboardEvent} event
     * @param {string} key
     */
    onKey(event, key) {
      if (onChipKey(event, key)) return true;
      // After a digit the keys of the page work: Enter then saves, wherever the focus was.
      if (/^[0-9]$/.test(key) && event.target !== root) root.focus({ preventScroll: true });
      if (/^[1-9]$/.test(key) && Number(key) <= count) {
        takeStep(joining ? "join" : "place", Number(key) - 1);
        return true;
      }
      if (key === "0") {
        setTiers(steps.placeRest(tiers, count));
        announce(t("rank.announce.all"));
        return true;
      }
      if (key === "escape" && (joining || picked !== null)) {
        joining = false;
        picked = null;
        render();
        return true;
      }
      if ((key === "=" || key === "t") && tiers.length && unranked().length) toggleJoining();
      else if (key === "backspace") stepBack();
      return key === "backspace" || key === "=" || key === "t";
    },
    end: () => narrow.removeEventListener("change", placePanel),
  };
}

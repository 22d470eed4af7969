// Ranking three to nine answers into tiers: by digit, by tap, by drag. Ties are tiers of several; what is in no tier is
// not ranked. The pure steps come first, then what is drawn of them.

// ---- steps over tiers, each giving new tiers

const without = (tiers, slot) => tiers.map((tier) => tier.filter((other) => other !== slot)).filter((tier) => tier.length);

const steps = {
  place: (tiers, slot) => [...without(tiers, slot), [slot]],
  // Beside what was placed last.
  join(tiers, slot) {
    const rest = without(tiers, slot);
    return rest.length ? [...rest.slice(0, -1), [...rest.at(-1), slot]] : [[slot]];
  },
  take: without,
  rest(tiers, count) {
    const ranked = tiers.flat();
    const others = Array.from({ length: count }, (_, slot) => slot).filter((slot) => !ranked.includes(slot));
    return others.length ? [...tiers, others] : tiers;
  },
  // One step up or down: out of a shared tier into one of its own, or from one's own into the neighbour's.
  move(tiers, slot, by) {
    const at = tiers.findIndex((tier) => tier.includes(slot));
    const shared = tiers[at].length > 1;
    if (shared) {
      const rest = tiers.map((tier) => tier.filter((other) => other !== slot));
      return rest.toSpliced(by < 0 ? at : at + 1, 0, [slot]);
    }
    const to = at + by;
    if (to < 0 || to >= tiers.length) return tiers;
    return tiers.map((tier, i) => (i === to ? [...tier, slot] : tier)).toSpliced(at, 1);
  },
  // Dropped on tier `index` (`join`), or before it (`before`), both as they stood before the slot was taken out.
  drop(tiers, slot, { kind, index }) {
    const out = tiers.map((tier) => tier.filter((other) => other !== slot));
    if (kind === "out") return out.filter((tier) => tier.length);
    const put = kind === "join" ? out.map((tier, i) => (i === index ? [...tier, slot] : tier)) : out.toSpliced(index, 0, [slot]);
    return put.filter((tier) => tier.length);
  },
};

// ---- the panel of tiers, and the places beside the answers

function makeRank(root, { changed, announce, isEnabled }) {
  const panel = root.querySelector(".rl-ranking");
  const list = panel.querySelector(".rl-tier-list");
  const tray = panel.querySelector(".rl-unranked");
  const narrow = window.matchMedia("(max-width: 900px)");
  let tiers = [];
  let before = []; // what Backspace goes back to
  let count = 0;
  let excerpts = [];
  let joining = false; // the next digit shares the last place
  let picked = null; // the answer that was tapped, and goes where is tapped next

  const number = (slot) => String(slot + 1);
  const place = (index) => t(`rank.place.${index + 1}`);
  const tierOf = (slot) => tiers.findIndex((tier) => tier.includes(slot));
  const unranked = () => Array.from({ length: count }, (_, slot) => slot).filter((slot) => tierOf(slot) < 0);

  function become(next, slot = null) {
    if (!isEnabled()) return;
    joining = false;
    picked = null;
    if (JSON.stringify(next) !== JSON.stringify(tiers)) {
      before.push(tiers);
      tiers = next.map((tier) => [...tier].sort((a, b) => a - b));
    }
    draw();
    if (slot !== null) announce(whereIs(slot));
    changed();
  }

  function whereIs(slot) {
    const at = tierOf(slot);
    const left = unranked().length;
    const others = at < 0 ? [] : tiers[at].filter((other) => other !== slot).map(number);
    const said = at < 0 ? t("rank.says_out", { answer: number(slot) })
      : others.length ? t("rank.says_tied", { answer: number(slot), place: place(at), others: others.join(", ") })
        : t("rank.says_placed", { answer: number(slot), place: place(at) });
    return `${said} ${left ? t("rank.says_left", { count: left }) : t("rank.says_all")}`;
  }

  // ---- drawing

  function chip(slot) {
    const at = tierOf(slot);
    return make(
      "button",
      {
        type: "button", class: "rl-chip", "data-chip": slot, testid: `chip-${number(slot)}`, "aria-pressed": picked === slot ? "true" : "false",
        "aria-label": t(at < 0 ? "rank.chip_out" : "rank.chip", { answer: number(slot), place: at < 0 ? "" : place(at) }),
        "aria-describedby": "rl-ranking-help",
      },
      make("b", {}, number(slot)), make("span", {}, excerpts[slot]),
    );
  }

  function tierRow(tier, index) {
    return make(
      "li", { class: "rl-tier", "data-drop": "join", "data-index": index, testid: `tier-${index + 1}` },
      make("span", { class: "rl-drop-line", "data-drop": "before", "data-index": index, testid: `before-${index + 1}` }),
      make("span", { class: "rl-tier-place" }, place(index)),
      make("div", { class: "rl-chips" }, tier.map(chip)),
    );
  }

  function nextRow() {
    if (tiers.length >= count) return null;
    const hint = joining ? t("rank.joining", { place: place(tiers.length - 1) }) : unranked().length ? t("rank.next_hint") : "";
    return make(
      "li", { class: "rl-tier rl-next-tier", "data-drop": "before", "data-index": tiers.length, testid: "next-place" },
      make("span", { class: "rl-tier-place" }, joining ? "=" : place(tiers.length)),
      make("span", { class: "rl-next-tier-hint" }, hint),
    );
  }

  function cardControls(slot) {
    const at = tierOf(slot);
    const answer = number(slot);
    const control = (testid, act, label, ...shown) => make(
      "button", { type: "button", class: `rl-place-button rl-place-button-${act}`, "data-rank": act, "data-slot": slot, testid: `${testid}-${answer}`, "aria-label": label },
      ...shown,
    );
    if (at >= 0) {
      return [control("take", "take", t("rank.take", { answer, place: place(at) }), place(at), make("span", { "aria-hidden": "true" }, "×"))];
    }
    const next = control("place", "place", t("rank.put", { answer, place: place(tiers.length) }), place(tiers.length));
    if (!tiers.length) return [next];
    const last = place(tiers.length - 1);
    return [control("tie", "join", t("rank.put_tied", { answer, place: last }), make("span", { "aria-hidden": "true" }, "="), last), next];
  }

  function summary() {
    const said = tiers.map((tier) => tier.map(number).join(" = ")).join(" › ");
    return said || t("rank.nothing_yet");
  }

  function draw() {
    const focused = document.activeElement?.closest?.("[data-chip], [data-rank]");
    const within = focused && root.contains(focused) ? { ...focused.dataset } : null;
    list.replaceChildren(...[...tiers.map(tierRow), nextRow()].filter(Boolean));
    tray.hidden = unranked().length === 0;
    tray.querySelector(".rl-chips").replaceChildren(...unranked().map(chip));
    panel.classList.toggle("rl-placing", picked !== null);
    panel.querySelector(".rl-ranking-summary-text").textContent = summary();
    root.dataset.ranked = tiers.flat().length;
    for (const card of root.querySelectorAll(".rl-answer")) {
      const slot = Number(card.dataset.slot);
      card.querySelector(".rl-place-buttons").replaceChildren(...cardControls(slot));
      card.classList.toggle("rl-ranked", tierOf(slot) >= 0);
    }
    if (!within) return;
    const again = within.chip !== undefined ? list.parentElement.querySelector(`[data-chip="${within.chip}"]`)
      : root.querySelector(`[data-slot="${within.slot}"][data-rank="take"], [data-slot="${within.slot}"][data-rank="place"]`);
    again?.focus({ preventScroll: true });
  }

  // ---- hands

  function pick(slot) {
    if (!isEnabled()) return;
    picked = picked === slot ? null : slot;
    draw();
    announce(picked === null ? whereIs(slot) : t("rank.picked", { answer: number(slot) }));
  }

  const acts = {
    place: (slot) => become(steps.place(tiers, slot), slot),
    join: (slot) => become(steps.join(tiers, slot), slot),
    take: (slot) => become(steps.take(tiers, slot), slot),
  };

  function onClick(event) {
    if (!count) return;
    const control = event.target.closest("[data-rank]");
    if (control) {
      acts[control.dataset.rank](Number(control.dataset.slot));
      // Whoever clicked goes on with the keys of the page; whoever pressed Enter stays on the button.
      if (event.detail) root.focus({ preventScroll: true });
      return;
    }
    const on = event.target.closest("[data-chip]");
    if (on && (picked === null || picked === Number(on.dataset.chip))) return pick(Number(on.dataset.chip));
    const target = event.target.closest("[data-drop]");
    if (target && picked !== null) become(steps.drop(tiers, picked, dropOf(target)), picked);
  }

  function dropOf(element) {
    return { kind: element.dataset.drop, index: Number(element.dataset.index) };
  }

  function onChipKey(event, key) {
    const on = event.target.closest?.("[data-chip]");
    if (!on) return false;
    const slot = Number(on.dataset.chip);
    if (["arrowup", "arrowdown"].includes(key) && tierOf(slot) >= 0) become(steps.move(tiers, slot, key === "arrowup" ? -1 : 1), slot);
    else if (["arrowup", "arrowdown"].includes(key)) become(steps.place(tiers, slot), slot);
    else if (key === "delete") become(steps.take(tiers, slot), slot);
    else return false;
    return true;
  }

  function expand(open) {
    panel.classList.toggle("rl-expanded", open);
    panel.querySelector(".rl-ranking-summary").setAttribute("aria-expanded", String(open));
  }

  // On a phone the tiers stick to the bottom, with the buttons; where there is room, they stand beside the answers.
  function settle() {
    const home = root.querySelector(narrow.matches ? ".rl-ranking-slot" : ".rl-sidebar");
    if (panel.parentElement !== home) home.prepend(panel);
  }

  root.addEventListener("click", onClick);
  panel.querySelector(".rl-ranking-summary").addEventListener("click", () => expand(!panel.classList.contains("rl-expanded")));
  narrow.addEventListener("change", settle);
  settle();

  makeDrag(root, {
    handles: ".rl-ranking [data-chip], [data-grip]",
    mayDrag: () => count > 0 && isEnabled(),
    ghostOf: (handle) => make("div", {}, make("b", {}, number(slotOf(handle))), make("span", {}, excerpts[slotOf(handle)])),
    targetAt: (element) => element.closest("[data-drop]"),
    started: () => { panel.classList.add("rl-placing"); if (narrow.matches) expand(true); },
    over: (target) => {
      for (const other of panel.querySelectorAll(".rl-drop-target")) other.classList.remove("rl-drop-target");
      target?.classList.add("rl-drop-target");
    },
    dropped: (handle, target) => become(steps.drop(tiers, slotOf(handle), dropOf(target)), slotOf(handle)),
    ended: () => { for (const other of panel.querySelectorAll(".rl-drop-target")) other.classList.remove("rl-drop-target"); draw(); },
  });

  function slotOf(handle) {
    return Number(handle.dataset.chip ?? handle.dataset.grip);
  }

  return {
    paint(view, texts) {
      count = view.answers.length > 2 ? view.answers.length : 0;
      tiers = [];
      before = [];
      joining = false;
      picked = null;
      excerpts = texts;
      panel.hidden = count === 0;
      expand(false);
      if (count) draw();
      else delete root.dataset.ranked;
    },
    restore(said) {
      if (!count || !said) return;
      tiers = said.map((tier) => [...tier]);
      draw();
    },
    tiers: () => tiers.map((tier) => [...tier]),
    unranked,
    // True if the key was one of ranking.
    key(event, key) {
      if (onChipKey(event, key)) return true;
      // Whoever types goes on with the keys of the page: Enter then saves, wherever the focus was.
      if (/^[0-9]$/.test(key) && event.target !== root) root.focus({ preventScroll: true });
      if (/^[1-9]$/.test(key) && Number(key) <= count) {
        acts[joining ? "join" : "place"](Number(key) - 1);
        return true;
      }
      if ((key === "=" || key === "t") && tiers.length && unranked().length) {
        joining = !joining;
        draw();
        announce(joining ? t("rank.joining", { place: place(tiers.length - 1) }) : "");
        return true;
      }
      if (key === "0") {
        become(steps.rest(tiers, count));
        announce(t("rank.says_all"));
        return true;
      }
      if (key === "backspace" && before.length) {
        const back = before.pop();
        become(back);
        before.pop();
        announce(summary());
        return true;
      }
      if (key === "escape" && (joining || picked !== null)) {
        joining = false;
        picked = null;
        draw();
        return true;
      }
      return key === "backspace" || key === "=" || key === "t";
    },
    end: () => narrow.removeEventListener("change", settle),
  };
}

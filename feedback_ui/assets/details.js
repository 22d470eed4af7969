// What a judgment may say beside the choice: ratings by aspect, a reason, a better answer. Only what the project asks
// for is there at all.

const LONGEST = 20000;

function makeDetails(root, { changed, nameOf }) {
  const box = root.querySelector(".rl-details");
  let view = null;
  let aspects = {}; // slot -> aspect -> rating
  let ideal = null; // { text, slot } once it was opened
  let reason = null; // the textarea, where a reason may be given
  let touchedIdeal = false;

  // ---- ratings

  function ratings(slot) {
    const { aspects: names, scale } = view.asks;
    return names.map((aspect, row) => {
      const group = `rl-aspect-${slot}-${row}`;
      const cells = Array.from({ length: scale }, (_, i) => make(
        "label", { class: "rl-option" },
        make("input", {
          type: "radio", name: group, value: i + 1, "data-slot": slot, "data-aspect": row, testid: `rate-${slot}-${row}-${i + 1}`,
        }),
        make("span", {}, String(i + 1)),
      ));
      return make("fieldset", { class: "rl-aspect", "data-group": group }, make("legend", {}, aspect), make("div", { class: "rl-options" }, cells));
    });
  }

  function rate(input) {
    input.checked = true;
    (aspects[input.dataset.slot] ??= {})[view.asks.aspects[input.dataset.aspect]] = Number(input.value);
    changed();
  }

  function unrated(slots) {
    for (const slot of slots) {
      for (const [row, aspect] of view.asks.aspects.entries()) {
        if (!aspects[slot]?.[aspect]) return { slot, row, aspect };
      }
    }
    return null;
  }

  function groupOf({ slot, row }) {
    return root.querySelector(`[name="rl-aspect-${slot}-${row}"]`);
  }

  // ---- a reason in words

  // As the server counts: an emoji is one character.
  const lengthOf = (text) => [...text.trim()].length;

  function reasonField() {
    const { rationale, min_chars } = view.asks;
    const required = rationale === "required";
    reason = make("textarea", {
      id: "rl-reason", rows: 2, maxlength: LONGEST, testid: "rationale", "aria-describedby": "rl-reason-count",
      required, dir: "auto",
    });
    const count = make("span", { class: "rl-hint", id: "rl-reason-count", testid: "rationale-count" });
    const say = () => {
      const count_of = lengthOf(reason.value);
      count.textContent = required ? t("compare.chars_of", { count: count_of, least: min_chars }) : "";
      count.classList.toggle("rl-long-enough", count_of >= min_chars);
    };
    reason.addEventListener("input", () => { say(); grow(reason); changed(); });
    reason.say = say;
    say();
    const label = make("label", { for: "rl-reason" }, t(required ? "compare.reason" : "compare.reason_optional"));
    return make("div", { class: "rl-field" }, make("div", { class: "rl-field-head" }, label, count), reason);
  }

  function lacking() {
    if (view.asks.rationale !== "required") return 0;
    return Math.max(0, view.asks.min_chars - lengthOf(reason?.value ?? ""));
  }

  // ---- a better answer

  function idealField() {
    const starts = [...view.answers.keys(), null].map((slot) => make(
      "label", { class: "rl-option rl-wide" },
      make("input", {
        type: "radio", name: "rl-ideal-from", value: slot ?? "", checked: slot === ideal.slot, testid: `ideal-from-${slot ?? "nothing"}`,
      }),
      make("span", {}, slot === null ? t("compare.ideal_nothing") : nameOf(slot)),
    ));
    const text = make("textarea", {
      id: "rl-ideal", rows: 6, maxlength: LONGEST, testid: "ideal", "aria-label": t("compare.ideal"), dir: "auto",
    });
    text.value = ideal.text;
    text.addEventListener("input", () => { ideal.text = text.value; touchedIdeal = true; grow(text); changed(); });
    const chooser = make("fieldset", { class: "rl-ideal-start" }, make("legend", {}, t("compare.ideal_from")), make("div", { class: "rl-options" }, starts));
    chooser.addEventListener("change", ({ target }) => {
      // Words of one's own are not thrown away for another beginning.
      const slot = target.value === "" ? null : Number(target.value);
      ideal.slot = slot;
      if (!touchedIdeal) ideal.text = text.value = slot === null ? "" : view.sources[slot];
      grow(text);
      changed();
    });
    const drop = make("button", { type: "button", class: "rl-text-button", "data-act": "drop-ideal", testid: "drop-ideal" }, t("compare.ideal_drop"));
    return make("div", { class: "rl-field" }, make("div", { class: "rl-field-head" }, make("span", {}, t("compare.ideal")), drop), chooser, text);
  }

  // A start that nothing was changed of says nothing.
  function idealSaid() {
    if (!ideal) return null;
    const text = ideal.text.trim();
    return text && (ideal.slot === null || ideal.text !== view.sources[ideal.slot]) ? { text: ideal.text, slot: ideal.slot } : null;
  }

  function grow(text) {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, window.innerHeight / 2)}px`;
  }

  function draw() {
    const { rationale, ideal: offered } = view.asks;
    const kept = reason?.value ?? "";
    const parts = [];
    const openers = [];
    if (rationale === "required" || reason) parts.push(reasonField());
    else if (rationale === "optional") openers.push(opener("reason", "R"));
    if (ideal) parts.push(idealField());
    else if (offered) openers.push(opener("ideal", "E"));
    if (openers.length) parts.push(make("div", { class: "rl-detail-buttons" }, openers));
    box.replaceChildren(...parts);
    box.hidden = parts.length === 0;
    if (reason && kept) {
      reason.value = kept;
      reason.say();
    }
    for (const text of box.querySelectorAll("textarea")) grow(text);
  }

  function opener(name, key) {
    return make(
      "button", { type: "button", class: "rl-text-button", "data-act": name, testid: `open-${name}`, "aria-keyshortcuts": key },
      t(`compare.open_${name}`), " ", cap(key),
    );
  }

  root.addEventListener("change", ({ target }) => {
    if (target.dataset.aspect !== undefined) rate(target);
  });

  return {
    paint(next) {
      view = next;
      aspects = {};
      ideal = reason = null;
      touchedIdeal = false;
      for (const card of root.querySelectorAll(".rl-answer")) card.querySelector(".rl-aspects").replaceChildren(...ratings(Number(card.dataset.slot)));
      draw();
    },
    restore(said) {
      for (const [slot, named] of Object.entries(said.aspects ?? {})) {
        for (const [aspect, rating] of Object.entries(named)) {
          const row = view.asks.aspects.indexOf(aspect);
          const input = root.querySelector(`[name="rl-aspect-${slot}-${row}"][value="${rating}"]`);
          if (input) rate(input);
        }
      }
      if (said.ideal && view.asks.ideal) {
        ideal = { ...said.ideal };
        touchedIdeal = true;
      }
      if (said.rationale && view.asks.rationale !== "off") reason = { value: said.rationale };
      draw();
    },
    openReason() {
      if (view.asks.rationale === "off") return;
      if (!reason) {
        reason = { value: "" };
        draw();
      }
      reason.focus();
    },
    openIdeal(slot) {
      if (!view.asks.ideal) return;
      if (!ideal) {
        ideal = { slot, text: slot === null ? "" : view.sources[slot] };
        draw();
      }
      root.querySelector("#rl-ideal").focus();
    },
    dropIdeal() {
      ideal = null;
      touchedIdeal = false;
      draw();
      root.querySelector("[data-testid=open-ideal]").focus();
      changed();
    },
    // A digit within a group of ratings rates, and goes on to the next.
    key(event, key) {
      const input = event.target.closest?.("[data-aspect]");
      if (!input || !/^\d$/.test(key)) return false;
      const wanted = key === "0" ? 10 : Number(key);
      const cell = root.querySelector(`[name="${input.name}"][value="${wanted}"]`);
      if (!cell) return true;
      rate(cell);
      const groups = [...root.querySelectorAll(".rl-aspect")];
      const next = groups[groups.findIndex((group) => group.dataset.group === input.name) + 1];
      (next?.querySelector("input:checked") ?? next?.querySelector("input") ?? reason ?? cell).focus();
      return true;
    },
    // The first thing that the project asks for and that is not there.
    missing(slots) {
      const rating = unrated(slots);
      if (rating) {
        return {
          says: t("compare.missing_rating", { answer: nameOf(rating.slot), aspect: rating.aspect }),
          lead: () => groupOf(rating).focus(),
        };
      }
      const lack = lacking();
      return lack ? { says: t("compare.missing_reason", { count: lack }), lead: () => reason.focus() } : null;
    },
    said(slots) {
      return {
        aspects: Object.fromEntries(slots.filter((slot) => aspects[slot]).map((slot) => [slot, aspects[slot]])),
        rationale: reason?.value.trim() ?? "",
        ideal: idealSaid(),
      };
    },
    // With what was begun and would not be sent.
    draft: () => ({ aspects, rationale: reason?.value ?? "", ideal: touchedIdeal ? ideal : null }),
    isRequired: () => view.asks.rationale === "required" || view.asks.aspects.length > 0,
  };
}

// Flags: what is wrong with the prompt or with one answer, with a note. One quiet dialog for all of them.

const FLAG_KINDS = ["unsafe", "personal_data", "wrong_language", "broken_prompt"];
const PROMPT = "prompt";

function makeFlags(root, { changed, nameOf }) {
  const dialog = root.querySelector(".rl-flag-dialog");
  let said = new Map(); // target (a slot, or the prompt) -> { kinds, note }
  let target = PROMPT;
  let answers = 0;

  function of(where) {
    if (!said.has(where)) said.set(where, { kinds: new Set(), note: "" });
    return said.get(where);
  }

  function whatIs(where) {
    return where === PROMPT ? t("compare.prompt") : nameOf(where);
  }

  function draw() {
    const targets = [PROMPT, ...Array(answers).keys()];
    dialog.querySelector(".rl-flag-targets").replaceChildren(...targets.map((where) => make(
      "label", { class: "rl-option" },
      make("input", { type: "radio", name: "rl-flag-target", value: where, checked: where === target, testid: `flag-on-${where}` }),
      make("span", {}, whatIs(where)),
    )));
    // Only a prompt can be a broken prompt.
    const kinds = FLAG_KINDS.filter((kind) => target === PROMPT || kind !== "broken_prompt");
    dialog.querySelector(".rl-flag-kinds").replaceChildren(...kinds.map((kind) => make(
      "label", { class: "rl-checkbox" },
      make("input", { type: "checkbox", value: kind, checked: of(target).kinds.has(kind), testid: `flag-${kind}` }),
      make("span", {}, t(`compare.flag.${kind}`)),
    )));
    dialog.querySelector("[data-testid=flag-note]").value = of(target).note;
  }

  function mark() {
    for (const box of root.querySelectorAll("[data-flags]")) {
      const where = box.dataset.flags === PROMPT ? PROMPT : Number(box.dataset.flags);
      const kinds = [...(said.get(where)?.kinds ?? [])];
      box.replaceChildren(...(kinds.length ? [make(
        "button", { type: "button", class: "rl-flag", "data-act": "flag", "data-target": where, testid: `flags-${where}` },
        kinds.map((kind) => t(`compare.flag.${kind}`)).join(" · "),
      )] : []));
    }
  }

  dialog.addEventListener("change", ({ target: input }) => {
    if (input.type === "radio") {
      target = input.value === PROMPT ? PROMPT : Number(input.value);
      draw();
      dialog.querySelector("[name=rl-flag-target]:checked").focus();
    } else if (input.type === "checkbox") {
      of(target).kinds[input.checked ? "add" : "delete"](input.value);
      mark();
      changed();
    }
  });
  dialog.addEventListener("input", ({ target: input }) => {
    if (input.dataset.testid !== "flag-note") return;
    of(target).note = input.value;
    changed();
  });

  return {
    paint(view) {
      said = new Map();
      target = PROMPT;
      answers = view.answers.length;
      if (dialog.open) dialog.close();
      mark();
    },
    restore(flags) {
      for (const { kind, note, slot } of flags ?? []) {
        const of_it = of(slot ?? PROMPT);
        of_it.kinds.add(kind);
        of_it.note = note;
      }
      mark();
    },
    open(where) {
      target = where ?? target;
      draw();
      dialog.showModal();
      dialog.querySelector(".rl-flag-kinds input").focus();
    },
    isOpen: () => dialog.open,
    said() {
      return [...said].flatMap(([where, { kinds, note }]) =>
        [...kinds].map((kind) => ({ kind, note: note.trim(), slot: where === PROMPT ? null : where })));
    },
  };
}

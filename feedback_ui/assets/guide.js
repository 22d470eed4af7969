// The guidelines beside the task: a quiet panel that stays as it was left, and a mark when a new version appeared.

function makeGuide(root) {
  const panel = root.querySelector(".rl-guidelines");
  const button = root.querySelector("[data-testid=guidelines-button]");
  const isNew = root.querySelector("[data-testid=guidelines-new]");
  const updated = root.querySelector("[data-testid=guidelines-updated]");
  const wide = window.matchMedia("(min-width: 901px)");
  let version = null;

  const wanted = () => (memory.get("guidelines.open") ?? (wide.matches ? "yes" : "no")) === "yes";

  function show() {
    const open = version !== null && wanted();
    panel.hidden = !open;
    root.classList.toggle("rl-with-guidelines", open);
    button.hidden = version === null;
    button.setAttribute("aria-expanded", String(open));
    const seen = memory.get("guidelines.seen");
    const fresh = version !== null && version !== seen;
    isNew.hidden = !fresh || open;
    updated.hidden = !fresh || !open || seen === null;
    // In sight is seen; the mark stays until the next comparison.
    if (fresh && open) memory.set("guidelines.seen", version);
  }

  // Beside the answers there is a place for it before its text has come: nothing moves then.
  if (wanted() && wide.matches && memory.get("guidelines.seen")) root.classList.add("rl-with-guidelines");

  return {
    paint(guidelines) {
      version = guidelines?.id ?? null;
      if (guidelines?.html !== undefined) panel.querySelector(".rl-text").innerHTML = guidelines.html;
      show();
    },
    toggle() {
      if (version === null) return;
      memory.set("guidelines.open", wanted() ? "no" : "yes");
      show();
    },
    isThere: () => version !== null,
    known: () => version,
  };
}

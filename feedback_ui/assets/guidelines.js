// @ts-check
// The panel of guidelines beside the comparison. Whether it is open is remembered; a badge marks a new version.

import { byTestId, find } from "./dom.js";
import { preferences } from "./preferences.js";

/** @param {HTMLElement} root */
export function makeGuidelines(root) {
  const panel = find(root, ".rl-guidelines");
  const button = byTestId(root, "guidelines-button");
  const newBadge = byTestId(root, "guidelines-new");
  const updatedBadge = byTestId(root, "guidelines-updated");
  const wide = window.matchMedia("(min-width: 901px)");
  /** @type {string | null} */
  let version = null;

  const wantsOpen = () => (preferences.get("guidelines.open") ?? (wide.matches ? "yes" : "no")) === "yes";

  function render() {
    const open = version !== null && wantsOpen();
    panel.hidden = !open;
    root.classList.toggle("rl-with-guidelines", open);
    button.hidden = version === null;
    button.setAttribute("aria-expanded", String(open));
    const seen = preferences.get("guidelines.seen");
    const isNew = version !== null && version !== seen;
    newBadge.hidden = !isNew || open;
    updatedBadge.hidden = !isNew || !open || seen === null;
    // An open panel counts as seen; the badge stays until the next comparison.
    if (version !== null && isNew && open) preferences.set("guidelines.seen", version);
  }

  // Reserves the panel's space before its text has arrived, so that nothing moves then.
  if (wantsOpen() && wide.matches && preferences.get("guidelines.seen")) root.classList.add("rl-with-guidelines");

  return {
    /** @param {import("./types.js").Guidelines | null | undefined} guidelines */
    render(guidelines) {
      version = guidelines?.id ?? null;
      if (guidelines?.html !== undefined) find(panel, ".rl-text").innerHTML = guidelines.html;
      render();
    },
    toggle() {
      if (version === null) return;
      preferences.set("guidelines.open", wantsOpen() ? "no" : "yes");
      render();
    },
    exist: () => version !== null,
    /** The version whose text this page has. */
    version: () => version,
  };
}

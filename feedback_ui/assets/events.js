// @ts-check
// What the browser does before or after the handler of one of Gradio's events. `feedback_ui.shared.scripts.in_browser` calls
// these functions by their names, with the event's values; what one returns takes the place of the values.

const COMPARISON_LINK = /^#comparison-(\d{1,15})$/;

/** Brings what Start led to into view: on a phone the run is below the form, and Start would seem to do nothing. */
export function showStartedRun() {
  document.querySelector("#start-refusal .rl-bad, #run-bar")?.scrollIntoView({ block: "nearest" });
}

/** Brings the comparison that was opened into view. */
export function showQualityItem() {
  document.querySelector("#quality-item")?.scrollIntoView({ block: "nearest" });
}

/** Whether the address links to a comparison, which the Lead page opens. */
export function isComparisonLink() {
  return COMPARISON_LINK.test(location.hash);
}

/**
 * The name of the Lead page's open sub-tab, and the comparison in the address's hash: Gradio sends neither.
 * @returns {[section: string, comparison: number | null]}
 */
export function leadPlace() {
  const tab = document.querySelector("#lead-sections [role=tab][aria-selected=true]");
  const linked = location.hash.match(COMPARISON_LINK);
  return [tab ? tab.id.replace("lead-", "").replace("-button", "") : "", linked ? Number(linked[1]) : null];
}

/** Shows the linked comparison, once: whoever comes back to the page later is not taken there again. */
export function showLinkedComparison() {
  if (!location.hash.startsWith("#comparison-")) return;
  document.querySelector("#lead-linked")?.scrollIntoView({ block: "nearest" });
  history.replaceState(null, "", location.pathname + location.search);
}

/**
 * Puts the browser's offset from UTC, in minutes, in the place of the first value: days begin at the reader's midnight.
 * @param {unknown} _
 * @param {...unknown} others
 */
export function withClock(_, ...others) {
  return [-new Date().getTimezoneOffset(), ...others];
}

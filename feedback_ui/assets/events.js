// @ts-check
// What the browser does before or after the handler of one of Gradio's events. `feedback_ui.shared.scripts.in_browser` calls
// these functions by their names, with the event's values; what one returns takes the place of the values.

const COMPARISON_LINK = /^#comparison-(\d{1,15})$/;
const DEMO_LINK = /^#(demo|gallery|version)-(.+)$/;
/** @type {Record<string, string>} */
const DEMO_SECTIONS = { demo: "trying", gallery: "gallery", version: "versions" };

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

/** Whether the address links to a part of the Demo page. */
export function isDemoLink() {
  return DEMO_LINK.test(location.hash);
}

/** The section of the Demo page that the address links to; empty for none. */
export function demoSection() {
  const linked = location.hash.match(DEMO_LINK);
  return linked ? DEMO_SECTIONS[linked[1]] : "";
}

/**
 * Puts what the address links to in the place of the first value, if it is a link of that kind.
 * @param {string} kind
 * @param {unknown[]} others
 */
function withLinked(kind, others) {
  const linked = location.hash.match(DEMO_LINK);
  let name = "";
  try {
    if (linked?.[1] === kind) name = decodeURIComponent(linked[2]);
  } catch {
    // A percent sign that begins no character: the link names nothing.
  }
  return [name, ...others];
}

/**
 * @param {unknown} _
 * @param {...unknown} others
 */
export function demoPlace(_, ...others) {
  return withLinked("demo", others);
}

/**
 * @param {unknown} _
 * @param {...unknown} others
 */
export function galleryPlace(_, ...others) {
  return withLinked("gallery", others);
}

/**
 * @param {unknown} _
 * @param {...unknown} others
 */
export function versionPlace(_, ...others) {
  return withLinked("version", others);
}

/**
 * Shows the address of the run in the gallery, so that it can be shared and survives a reload.
 * @param {string | null} run
 */
export function showGalleryAddress(run) {
  if (run) history.replaceState(null, "", `#gallery-${encodeURIComponent(run)}`);
}

/**
 * Shows the address of a version's card.
 * @param {string | null} name
 */
export function showVersionAddress(name) {
  if (name) history.replaceState(null, "", `#version-${encodeURIComponent(name)}`);
}

/**
 * Puts the link to the conversation into the address, and returns the whole address.
 * @param {string} hash
 */
export function demoLinkMade(hash) {
  if (!hash) return "";
  history.replaceState(null, "", hash);
  return location.href;
}

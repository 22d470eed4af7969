// @ts-check
// What the browser does before or after the handler of one of Gradio's events. `feedback_ui.shared.scripts.in_browser` calls
// these functions by their names, with the event's values; what one returns takes the place of the values.

import { hasParts, linkedComparison, openTab, place, selectTab, setPlace, startAddresses, TABS } from "./addresses.js";
import { followCharts } from "./chart_files.js";
import { followOptions, markOptions } from "./round_form.js";

const FIRST_SECTION = TABS["lead-sections"][0];
const DEMO_LINK = /^#(demo|gallery|version)-(.+)$/;
/** @type {Record<string, string>} */
const DEMO_SECTIONS = { demo: "trying", gallery: "gallery", version: "versions" };

/** @type {string | null} The run that was chosen on the Training page; without a choice it shows the newest. */
let chosenRun = null;

/** What the address of runs that are laid side by side begins with; a run's id has no `~`. */
const COMPARED = /^compare(~|$)/;

/** @type {string} The part of the address that names the runs that are laid side by side. */
let compared = "compare";

/** Whether runs were laid side by side when the section of the Training page was last chosen. */
let wereCompared = false;

/** Whether the Training page shows runs side by side. */
function compares() {
  return openTab("training-sections") === "compare";
}

/** What the audit shows, as its address ends: empty for everything, or `/3`, `/3/excluded`, `/all/excluded`. */
let auditFilter = "";

/** @type {string | null} What an address that was opened wants the audit to show, until the audit has it. */
let wantedAudit = null;

/** The open section of the Lead page with its filter, unless it is the one that the page opens with. */
function leadSection() {
  const section = openTab("lead-sections");
  if (section === "audit") return section + auditFilter;
  return section === FIRST_SECTION ? null : section;
}

/** The name of the section in a part of the Lead page's address. @param {string | null} part */
function sectionIn(part) {
  return part?.split("/")[0] ?? FIRST_SECTION;
}

/** Takes the audit's filter from the address, if that names the audit. @returns {boolean} whether it does */
function takeAuditFilter() {
  const { page, part } = place();
  if (page !== "lead" || sectionIn(part) !== "audit") return false;
  auditFilter = (part ?? "").slice("audit".length);
  return true;
}

/** @param {string} id the id of a hidden button, whose handler shows what the address names */
function press(id) {
  const button = document.getElementById(id);
  if (button instanceof HTMLElement) button.click();
}

/** Begins to follow the address. Called once, when the app has loaded. */
export function followAddress() {
  hasParts("lead", {
    current: leadSection,
    async open(part, entered) {
      // A section that is open already is not told that it was selected.
      wantedAudit = takeAuditFilter() && openTab("lead-sections") !== "audit" ? auditFilter : null;
      if (linkedComparison() === null) await selectTab("lead-sections", sectionIn(part));
      if (!entered) press("lead-follow");
    },
  });
  hasParts("training", {
    current: () => (compares() ? compared : chosenRun),
    async open(part, entered) {
      if (part !== null && COMPARED.test(part)) {
        const already = compares();
        await selectTab("training-sections", "compare");
        if (already) press("compare-follow");
        return;
      }
      chosenRun = part;
      await selectTab("training-sections", "rounds");
      if (!entered) press("training-follow");
    },
  });
  startAddresses();
}

export { followCharts, followOptions, markOptions };

/** Brings what Start led to into view: on a phone the run is below the form, and Start would seem to do nothing. */
export function showStartedRun(/** @type {string | null} */ run) {
  if (!document.querySelector("#start-refusal .rl-bad")) rememberRun(run);
  document.querySelector("#start-refusal .rl-bad, #run-bar")?.scrollIntoView({ block: "nearest" });
}

/** The run in the address, or else the one that was chosen before; none opens the newest. */
export function runOfAddress() {
  const { page, part } = place();
  if (page === "training" && part !== null && !COMPARED.test(part)) chosenRun = part;
  return [chosenRun ?? ""];
}

/**
 * Writes the run into the address again, when runs are no longer laid side by side. Gradio also calls it when it has built the page,
 * whose address may be one of runs side by side that are still to be shown.
 */
export function rememberRounds() {
  const { page, part } = place();
  if (wereCompared && page === "training" && part !== null && COMPARED.test(part)) setPlace("training", chosenRun);
  wereCompared = false;
}

/** The runs that the address names, or else those that were laid side by side before, as `RUN~RUN`. */
export function comparedRuns() {
  wereCompared = true;
  const { page, part } = place();
  if (page === "training" && part !== null && COMPARED.test(part)) compared = part;
  else setPlace("training", compared);
  return [compared.replace(COMPARED, "")];
}

/** Writes the runs that are laid side by side into the address. @param {string[] | null} runs @returns {[string[]]} */
export function rememberCompared(runs) {
  compared = ["compare", ...(runs ?? [])].join("~");
  if (openTab("pages") === "training" && compares()) setPlace("training", compared);
  return [runs ?? []];
}

/**
 * Remembers the run that was chosen or started, and writes it into the address if its page is open.
 *
 * Choosing calls it at once, and not when the server has answered: by then another page may be open, or Back was pressed.
 * @param {string | null} run
 * @returns {[string | null]}
 */
export function rememberRun(run) {
  if (run) {
    chosenRun = run;
    if (openTab("pages") === "training") setPlace("training", run);
  }
  return [run];
}

/**
 * What an editor holds after a load: what was loaded, unless something was typed while that was on its way.
 * @param {string} typed @param {string} sent what it held when the load began @param {string} loaded
 */
export function keepTyped(typed, sent, loaded) {
  return [typed === sent ? loaded : typed];
}

/** Brings the comparison that was opened into view, and its number into the address. */
export function showQualityItem() {
  const item = document.querySelector("#quality-item");
  item?.scrollIntoView({ block: "nearest" });
  const comparison = item?.querySelector("[data-comparison]")?.getAttribute("data-comparison");
  if (comparison) setPlace("lead", `comparison-${comparison}`);
}

/**
 * The Lead page's open sub-tab with its filter, and the comparison in the address: Gradio sends neither.
 * @returns {[section: string, comparison: number | null]}
 */
export function leadPlace() {
  takeAuditFilter();
  return [leadSection() ?? FIRST_SECTION, linkedComparison()];
}

/**
 * What the address that was opened wants the audit to show, or an empty text if it was opened in another way; then the values of
 * its fields.
 * @param {unknown} _
 * @param {...unknown} fields
 */
export function auditPlace(_, ...fields) {
  const wanted = wantedAudit === null ? "" : wantedAudit || "/";
  wantedAudit = null;
  return [wanted, ...fields];
}

/** The end of the audit's address. @param {unknown} who @param {unknown} did */
function filterOf(who, did) {
  return did ? `/${who || "all"}/${did}` : who ? `/${who}` : "";
}

/** Writes into the address whose acts the audit shows, and which. @param {unknown} who @param {unknown} did */
export function rememberAudit(who, did) {
  auditFilter = filterOf(who, did);
  if (place().page === "lead" && openTab("lead-sections") === "audit") setPlace("lead", leadSection());
}

/** As `rememberAudit`, where another section has opened the audit: Back leads to that section. @param {unknown} who @param {unknown} did */
export function openedAudit(who, did) {
  auditFilter = filterOf(who, did);
  if (place().page === "lead" && openTab("lead-sections") === "audit") setPlace("lead", leadSection(), { replace: true });
}

/** Writes the sub-tab that was opened into the address. */
export function rememberSection() {
  const opened = openTab("lead-sections");
  const { page, part } = place();
  // A comparison that the address links to is shown above the sub-tab that the page opens with.
  if (page !== "lead" || (linkedComparison() !== null && opened === FIRST_SECTION)) return;
  if (opened !== sectionIn(part)) setPlace("lead", leadSection());
}

/** Shows the linked comparison. */
export function showLinkedComparison() {
  if (linkedComparison() !== null) document.querySelector("#lead-linked")?.scrollIntoView({ block: "nearest" });
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

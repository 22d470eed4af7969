// @ts-check
// The address of what is open: `#history/…`, `#lead/gold`, `#lead/audit/3/excluded`, `#training/RUN`, `#training/compare~RUN~RUN`,
// `#comparison-46`. Gradio's tabs have none. The address follows what is opened, and what is open follows the address, so that Back, a
// reload and a link work.

/** The names of the tabs, by the id of their row, in their order on the page. */
export const TABS = {
  pages: ["compare", "history", "lead", "leaderboard", "training", "demo", "data"],
  "lead-sections": ["quality", "exclusions", "prompts", "comparisons", "export", "guidelines", "settings", "accounts", "audit"],
  "training-sections": ["rounds", "compare"],
};

/** A link to one comparison, which the Lead page shows above its sub-tabs. */
const COMPARISON = /^comparison-(\d{1,15})$/;

/** Links to parts of the Demo page, which it opens itself. */
const DEMO = /^(demo|gallery|version)-/;

/** How long to wait for tabs, which Gradio builds after the page has loaded. */
const TABS_WITHIN_MS = 30000;

/** How long to wait for a tab that was chosen to open. */
const OPENS_WITHIN_MS = 2000;

/**
 * A page that has parts with addresses of their own, such as runs.
 * @typedef {object} PageWithParts
 * @property {(part: string | null, entered: boolean) => void} open opens a part; `entered` if the page was closed before
 * @property {() => string | null} current the part that is open
 */

/** @type {Map<string, PageWithParts>} */
const withParts = new Map();

let following = false;

/** What the address names: a page, and a part of it. @returns {{ page: string, part: string | null }} */
export function place() {
  const named = location.hash.slice(1);
  if (COMPARISON.test(named)) return { page: "lead", part: named };
  if (DEMO.test(named)) return { page: "demo", part: named };
  const cut = named.indexOf("/");
  if (cut < 0) return { page: named || "compare", part: null };
  return { page: named.slice(0, cut), part: decoded(named.slice(cut + 1)) };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The number of the comparison that the address links to. @returns {number | null} */
export function linkedComparison() {
  const linked = place().part?.match(COMPARISON);
  return linked ? Number(linked[1]) : null;
}

/**
 * Sets the address of what has been opened. Back then leads to what was open before.
 * @param {string} page
 * @param {string | null} [part]
 * @param {{ go?: boolean, replace?: boolean }} [options] `go`: open it, too; `replace`: Back does not lead to the address before
 */
export function setPlace(page, part = null, { go = false, replace = false } = {}) {
  const now = place();
  if (now.page === page && now.part === part) return;
  const isComparison = part !== null && COMPARISON.test(part);
  const named = part === null ? "" : `/${encodeURIComponent(part).replaceAll("%2F", "/")}`;
  const address = isComparison ? `#${part}` : `#${page}${named}`;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  if (go) follow();
}

/**
 * Tells of the parts of a page. A page that Gradio builds only when it is opened tells of them then, and opens its part at once.
 * @param {string} page
 * @param {PageWithParts} parts
 */
export function hasParts(page, parts) {
  withParts.set(page, parts);
  const now = place();
  if (following && now.page === page && now.part !== null) parts.open(now.part, true);
}

/** The name of the open tab in a row. @param {keyof typeof TABS} row @returns {string | null} */
export function openTab(row) {
  return document.querySelector(`#${row} > .tab-wrapper [role=tab][aria-selected=true]`)?.getAttribute("data-tab-id") ?? null;
}

/**
 * Opens a tab, also one that stands in the menu of the tabs for which there is no room.
 * @param {keyof typeof TABS} row
 * @param {string} name
 */
export async function selectTab(row, name) {
  if (!TABS[row].includes(name) || !(await isBuilt(row)) || openTab(row) === name) return;
  const inRow = (/** @type {string} */ each) => document.querySelector(`#${row} > .tab-wrapper [role=tab][data-tab-id="${each}"]`);
  const inMenu = TABS[row].filter((each) => !inRow(each));
  const menu = document.querySelectorAll(`#${row} > .tab-wrapper .overflow-dropdown > button`);
  const button = inRow(name) ?? menu[inMenu.indexOf(name)];
  if (button instanceof HTMLElement) button.click();
}

function moment() {
  return new Promise((done) => {
    setTimeout(done, 50);
  });
}

/** @param {keyof typeof TABS} row */
async function isBuilt(row) {
  const until = performance.now() + TABS_WITHIN_MS;
  while (!openTab(row) && performance.now() < until) await moment();
  return openTab(row) !== null;
}

/** Whether a tab that was chosen has opened: Gradio opens it some time after the click. @param {keyof typeof TABS} row @param {string} name */
async function isOpen(row, name) {
  const until = performance.now() + OPENS_WITHIN_MS;
  while (openTab(row) !== name && place().page === name && performance.now() < until) await moment();
  return openTab(row) === name;
}

/** Opens what the address names. */
async function follow() {
  const { page, part } = place();
  const entered = openTab("pages") !== page;
  await selectTab("pages", page);
  if (await isOpen("pages", page)) withParts.get(page)?.open(part, entered);
}

/** Writes into the address which page is open, if it names another one. */
function record() {
  const page = openTab("pages");
  if (page !== null && page !== place().page) setPlace(page, withParts.get(page)?.current() ?? null);
}

/** Begins to follow the address, once the app has loaded. */
export async function startAddresses() {
  if (!(await isBuilt("pages"))) return;
  following = true;
  await follow();
  window.addEventListener("popstate", follow);
  const pages = document.querySelector("#pages");
  if (pages) new MutationObserver(record).observe(pages, { subtree: true, attributeFilter: ["aria-selected"] });
}

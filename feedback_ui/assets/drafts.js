// @ts-check
// Drafts of unsent judgments, in this browser tab's session storage: they survive a reload, a lost connection and a lost
// session.

import { storageKey } from "./storage_key.js";

/** @typedef {import("./types.js").Draft} Draft */

const MAX_DRAFTS = 20;

/**
 * Keeps what was just judged as the draft of a correction of the judgment that the store has. What is empty in it leaves
 * that judgment's part as it is.
 * @param {string} stored the judgment
 * @param {Draft | null} draft
 */
export function keepForCorrection(stored, draft) {
  const { choice, strength, tiers, aspects, rationale, ideal, flags } = draft ?? {};
  /** @type {Draft} */
  const kept = choice || tiers?.length ? { choice: choice ?? "rank", strength: strength ?? null, tiers } : {};
  if (Object.keys(aspects ?? {}).length) kept.aspects = aspects;
  if (rationale) kept.rationale = rationale;
  if (ideal) kept.ideal = ideal;
  if (flags?.length) kept.flags = flags;
  makeDrafts("history").set(stored, kept);
}

/**
 * The one request that the server has not answered, so that the page can send it after a reload.
 * @param {string} page
 */
export function makeUnsent(page) {
  const key = storageKey(`unsent.${page}`);
  return {
    /** @returns {object | null} */
    get: () => read(key),
    /** @param {object} action */
    set: (action) => tryTo(() => sessionStorage.setItem(key, JSON.stringify(action))),
    clear: () => tryTo(() => sessionStorage.removeItem(key)),
  };
}

/** @param {string} key */
function read(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

/** Storage may be full or refused; then there is no draft. @param {() => void} write */
function tryTo(write) {
  try {
    write();
  } catch {
    // The judgment is still on the page.
  }
}

/** @param {string} page */
export function makeDrafts(page) {
  const prefix = storageKey(`draft.${page}.`);

  function prune() {
    const keys = Object.keys(sessionStorage).filter((key) => key.startsWith(prefix));
    const savedAt = (/** @type {string} */ key) => read(key)?.at ?? 0;
    for (const key of keys.sort((a, b) => savedAt(b) - savedAt(a)).slice(MAX_DRAFTS)) sessionStorage.removeItem(key);
  }

  return {
    /** @param {string} id @returns {Draft | null} */
    get: (id) => read(prefix + id),
    /** @param {string} id */
    remove: (id) => tryTo(() => sessionStorage.removeItem(prefix + id)),
    /** @param {string} id @param {Draft} draft */
    set: (id, draft) => tryTo(() => {
      sessionStorage.setItem(prefix + id, JSON.stringify({ ...draft, at: Date.now() }));
      prune();
    }),
  };
}

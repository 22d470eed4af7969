// @ts-check
// Preferences that the browser remembers, such as an open panel. Storage may be refused; nothing depends on it.

import { storageKey } from "./storage_key.js";

export const preferences = {
  /** @param {string} name */
  get(name) {
    try {
      return localStorage.getItem(storageKey(name));
    } catch {
      return null;
    }
  },
  /** @param {string} name @param {string} value */
  set(name, value) {
    try {
      localStorage.setItem(storageKey(name), value);
    } catch {
      // A private window has no storage.
    }
  },
};

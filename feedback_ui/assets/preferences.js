// @ts-check
// Preferences that the browser remembers, such as an open panel. Storage may be refused; nothing depends on it.

export const preferences = {
  /** @param {string} name */
  get(name) {
    try {
      return localStorage.getItem(`rankloop.${name}`);
    } catch {
      return null;
    }
  },
  /** @param {string} name @param {string} value */
  set(name, value) {
    try {
      localStorage.setItem(`rankloop.${name}`, value);
    } catch {
      // A private window has no storage.
    }
  },
};

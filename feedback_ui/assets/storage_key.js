// @ts-check
// The names of what the browser stores. Several projects may share one address, and each has names of its own: an answer that was not
// sent in one project must never be sent to another.

/** @param {string} name */
export function storageKey(name) {
  const project = location.pathname.match(/^\/p\/([^/]+)\//)?.[1];
  return project ? `rankloop.p.${project}.${name}` : `rankloop.${name}`;
}

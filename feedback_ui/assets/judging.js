// @ts-check
// The entry of the judging pages: `start.js` imports it, and it imports all other modules.

import { startCompare } from "./compare.js";
import { startHistory } from "./history.js";
import { makeClient } from "./server.js";

/**
 * Starts the page that `root` holds.
 * @param {HTMLElement} root
 * @param {import("./types.js").Server} server
 */
export function start(root, server) {
  const startPage = root.matches(".rl-history") ? startHistory : startCompare;
  startPage(root, makeClient(server));
}

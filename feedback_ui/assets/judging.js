// @ts-check
// The entry of the judging pages: `start.js` imports it, and it imports all other modules.

import { startCompare } from "./compare.js";
import { isTyping, targetOf } from "./dom.js";
import { startHistory } from "./history.js";
import { preferences } from "./preferences.js";
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

/** The hints of keys are shown to whoever has a mouse, and to whoever presses a key outside of a text. */
function showKeys() {
  document.documentElement.dataset.keys = "shown";
}

/** @param {KeyboardEvent} event */
function noticeKeyboard(event) {
  if (isTyping(targetOf(event)) || event.key === "Unidentified") return;
  document.removeEventListener("keydown", noticeKeyboard, { capture: true });
  preferences.set("keyboard", "yes");
  showKeys();
}

if (preferences.get("keyboard") === "yes") showKeys();
else document.addEventListener("keydown", noticeKeyboard, { capture: true });

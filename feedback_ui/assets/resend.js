// @ts-check
// Sends again what the server has not answered, until it answers: after a second, then after twice as long each time.

const FIRST_MS = 1000;
const LONGEST_MS = 30000;

/** @param {() => void} send */
export function makeResend(send) {
  /** @type {number | undefined} */
  let timer;
  let wait = FIRST_MS;

  // The browser knows when the network is back; the server may be back at any moment.
  window.addEventListener("online", () => {
    if (timer !== undefined) send();
  });

  return {
    /** Sends again in a while. */
    later() {
      clearTimeout(timer);
      timer = window.setTimeout(send, wait);
      wait = Math.min(2 * wait, LONGEST_MS);
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
      wait = FIRST_MS;
    },
    isOn: () => timer !== undefined,
  };
}

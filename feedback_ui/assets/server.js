// @ts-check
// Calls the component's server functions, with a time limit. A server that does not answer is an Error; one that refuses
// is a Refusal.

import { t } from "./i18n.js";

const TIMEOUT_MS = 15000;

export class Refusal extends Error {
  /**
   * @param {string} message
   * @param {boolean} signedOut whether signing in again would help
   */
  constructor(message, signedOut) {
    super(message);
    this.signedOut = signedOut;
  }
}

/**
 * @param {import("./types.js").Server} server
 * @returns {import("./types.js").Ask}
 */
export function makeClient(server) {
  return async (name, data = {}) => {
    const reply = /** @type {any} */ (await withTimeout(server[name](data)));
    if (reply?.refused) throw new Refusal(reply.refused, reply.signed_out);
    if (reply) return reply;
    // Gradio's client turns every failure into `undefined`.
    if (await isSignedOut()) throw new Refusal(t("compare.signed_out"), true);
    throw new Error("no reply");
  };
}

/** @param {Promise<unknown>} reply */
async function withTimeout(reply) {
  /** @type {number | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = window.setTimeout(() => reject(new Error("timeout")), TIMEOUT_MS);
  });
  try {
    return await Promise.race([reply, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function isSignedOut() {
  try {
    const page = await fetch(location.href, { method: "HEAD", cache: "no-store", redirect: "manual" });
    return page.status === 401 || page.status === 403 || page.type === "opaqueredirect";
  } catch {
    return false;
  }
}

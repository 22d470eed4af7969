// Asking the server: with patience, and telling apart who does not answer from who does not let in.

const TIMEOUT_MS = 15000;

class Refusal extends Error {
  constructor(message, signedOut) {
    super(message);
    this.signedOut = signedOut;
  }
}

async function ask(name, data = {}) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("late")), TIMEOUT_MS); });
  try {
    const reply = await Promise.race([server[name](data), late]);
    if (reply?.refused) throw new Refusal(reply.refused, reply.signed_out);
    if (reply) return reply;
    // Gradio's client turns every failure into `undefined`.
    if (await isLockedOut()) throw new Refusal(t("compare.signed_out"), true);
    throw new Error("no reply");
  } finally {
    clearTimeout(timer);
  }
}

async function isLockedOut() {
  try {
    const page = await fetch(location.href, { method: "HEAD", cache: "no-store", redirect: "manual" });
    return page.status === 401 || page.status === 403 || page.type === "opaqueredirect";
  } catch {
    return false;
  }
}

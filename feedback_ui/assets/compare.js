// The judging component. Knows keys, focus and what is on the screen; knows nothing of models or who wrote an answer.
// Gradio hands in `element` and `server`. HTML in a reply was made safe by the server; all else is set as text.

const root = element.querySelector(".rl-compare");
const find = (selector) => root.querySelector(selector);
const byTest = (name) => find(`[data-testid="${name}"]`);

const POLL_MS = 2000;
const TIMEOUT_MS = 15000;
// The second half of a double click or a bouncing key must not judge the comparison that has just appeared.
const SETTLE_MS = 250;
const SAYS = { a: "A is better", b: "B is better", tie: "Tie", both_bad: "Both bad", skip: "Skipped" };
const KEYS = {
  1: "a", a: "a", arrowleft: "a", 2: "b", b: "b", arrowright: "b", t: "tie", x: "both_bad", s: "skip", u: "undo",
};

let shown = null; // the comparison on the screen
let unsent = null; // the act that the server has not acknowledged
let busy = false;
let poll = null;

async function ask(name, data = {}) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("late")), TIMEOUT_MS); });
  try {
    const reply = await Promise.race([server[name](data), late]);
    // Gradio's client turns every failure into `undefined`.
    if (!reply) throw new Error("no reply");
    return reply;
  } finally {
    clearTimeout(timer);
  }
}

// ---- what is on the screen

function setState(state) {
  root.dataset.state = state;
  const ready = state === "ready";
  for (const button of root.querySelectorAll("[data-choice], [data-act=skip], [data-reason], [data-testid=skip-submit]")) {
    button.disabled = !ready;
  }
  byTest("undo").disabled = !(ready || state === "empty");
}

function paint(view) {
  clearTimeout(poll);
  closeSkip();
  byTest("judged-count").textContent = view.count;
  const empty = view.state !== "comparison";
  find(".rl-empty").hidden = !empty;
  find(".rl-work").hidden = empty;
  if (empty) {
    shown = null;
    delete root.dataset.presentation;
    find(".rl-empty h2").textContent = view.title;
    find(".rl-empty p").textContent = view.note;
    setState("empty");
    poll = setTimeout(refill, POLL_MS);
    return;
  }
  shown = view;
  byTest("prompt-kind").textContent = view.kind;
  find(".rl-turns").replaceChildren(...view.turns.map(turn));
  for (const [slot, name] of ["answer-a", "answer-b"].entries()) {
    fill(byTest(name).querySelector(".rl-text"), view.answers[slot], "This answer is empty.");
  }
  root.dataset.presentation = view.presentation_id;
  setState("settling");
  setTimeout(() => { if (root.dataset.state === "settling") setState("ready"); }, SETTLE_MS);
}

function turn({ role, html }) {
  const box = document.createElement("div");
  box.className = "rl-turn";
  if (role) {
    const label = document.createElement("p");
    label.className = "rl-role";
    label.textContent = role;
    box.append(label);
  }
  const text = document.createElement("div");
  text.className = "rl-text";
  text.dir = "auto";
  fill(text, html, "This turn is empty.");
  box.append(text);
  return box;
}

function fill(box, html, otherwise) {
  if (html) {
    box.innerHTML = html;
    return;
  }
  const nothing = document.createElement("p");
  nothing.className = "rl-nothing";
  nothing.textContent = otherwise;
  box.replaceChildren(nothing);
}

function problem(message, retry = false) {
  const box = byTest("problem");
  box.hidden = !message;
  box.querySelector("span").textContent = message;
  byTest("retry").hidden = !retry;
  if (retry) byTest("retry").focus();
}

function announce(message) {
  byTest("live").textContent = message;
}

function noteSaved(message) {
  const note = byTest("saved-note");
  note.textContent = message ? ` · ${message}` : "";
  note.classList.add("rl-on");
  setTimeout(() => note.classList.remove("rl-on"), 900);
}

function toTop() {
  root.focus({ preventScroll: true });
  window.scrollTo({ top: 0, behavior: "instant" });
}

// ---- talking to the server

async function load() {
  try {
    paint(await ask("next_comparison"));
    problem("");
  } catch {
    problem("The server does not answer. Trying again…");
    poll = setTimeout(load, POLL_MS);
  }
}

async function refill() {
  if (!root.isConnected) return;
  if (busy || shown) return;
  if (!isVisible()) {
    poll = setTimeout(refill, POLL_MS);
    return;
  }
  await load();
  if (shown) announce("A comparison is ready.");
}

async function send(act) {
  busy = true;
  unsent = act;
  setState("saving");
  problem("");
  try {
    const reply = await ask(act.name, act.data);
    unsent = null;
    paint(reply.next);
    problem(reply.problem ?? "");
    const done = reply.problem ?? reply.says ?? act.says;
    noteSaved(reply.problem ? "" : done);
    const then = act.name === "judge" && (shown ? "Next comparison." : "No comparison is waiting.");
    announce(`${done}. ${then || ""}`);
    toTop();
  } catch {
    if (act.name === "undo") {
      // A second undo would take back one more: look at what the server has instead of asking again.
      unsent = null;
      problem("The server did not answer, so the undo may not have happened. Looking again…");
      poll = setTimeout(load, POLL_MS);
      return;
    }
    setState("unsent");
    closeSkip();
    problem(`Not saved: the server did not answer. Your choice (${act.says}) is kept here.`, true);
  } finally {
    busy = false;
  }
}

function judge(choice, reason = null) {
  if (busy || root.dataset.state !== "ready") return;
  send({ name: "judge", data: { presentation_id: shown.presentation_id, choice, reason }, says: SAYS[choice] });
}

function undo() {
  if (busy || !["ready", "empty"].includes(root.dataset.state)) return;
  send({ name: "undo", data: {}, says: "Undone" });
}

// ---- the reason for skipping

function openSkip() {
  if (root.dataset.state !== "ready") return;
  find(".rl-skip").hidden = false;
  find(".rl-actions").hidden = true;
  find(".rl-skip [data-reason]").focus({ preventScroll: true });
}

function closeSkip() {
  find(".rl-skip").hidden = true;
  find(".rl-other").hidden = true;
  find(".rl-actions").hidden = false;
  byTest("skip-text").value = "";
}

function otherReason() {
  find(".rl-other").hidden = false;
  byTest("skip-text").focus();
}

function pickReason(number) {
  const reasons = [...find(".rl-skip").querySelectorAll("[data-reason]")];
  if (reasons[number - 1]) judge("skip", reasons[number - 1].dataset.reason);
  else if (number === reasons.length + 1) otherReason();
}

// ---- hands

const ACTS = {
  help: toggleHelp,
  retry: () => { if (unsent && !busy) send(unsent); },
  skip: openSkip,
  other: otherReason,
  "close-skip": () => { closeSkip(); root.focus({ preventScroll: true }); },
  undo,
};

function toggleHelp() {
  const help = byTest("help");
  if (help.open) help.close();
  else help.showModal();
}

function isVisible() {
  return document.visibilityState === "visible" && root.checkVisibility();
}

function isTyping(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}

function onKey(event) {
  if (!root.isConnected) {
    document.removeEventListener("keydown", onKey);
    return;
  }
  if (event.repeat || event.isComposing || !isVisible()) return;
  const key = event.key.toLowerCase();
  const skipping = !find(".rl-skip").hidden;
  if (key === "escape" && skipping) return ACTS["close-skip"]();
  if (isTyping(event.target) || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" || event.shiftKey || byTest("help").open) return;
    event.preventDefault();
    return undo();
  }
  if (key === "?") {
    event.preventDefault();
    return toggleHelp();
  }
  if (event.shiftKey || byTest("help").open) return;
  // Elsewhere on the page arrows have a work of their own: they walk along tabs and move sliders.
  if (key.startsWith("arrow") && event.target !== document.body && !root.contains(event.target)) return;
  if (skipping && /^[1-4]$/.test(key)) {
    event.preventDefault();
    return pickReason(Number(key));
  }
  const choice = KEYS[key];
  if (!choice || skipping) return;
  event.preventDefault();
  if (ACTS[choice]) ACTS[choice]();
  else judge(choice);
}

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || event.detail > 1) return;
  if (button.dataset.choice) judge(button.dataset.choice);
  else if (button.dataset.reason) judge("skip", button.dataset.reason);
  else ACTS[button.dataset.act]?.();
});
find(".rl-skip").addEventListener("submit", (event) => {
  event.preventDefault();
  const reason = byTest("skip-text").value.trim();
  if (reason) judge("skip", reason);
});
document.addEventListener("keydown", onKey);
load();

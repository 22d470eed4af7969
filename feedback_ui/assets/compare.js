// The Compare page: fetches comparisons, sends acts, and keeps what was begun. Gradio hands in `element` and `server`.

const POLL_MS = 2000;
const BEAT_MS = 60000;
const LOOK_MS = 10000;

const root = element.querySelector(".rl-compare");
const find = (selector) => root.querySelector(selector);
const byTest = (name) => find(`[data-testid="${name}"]`);

let shown = null; // the comparison on the screen
let unsent = null; // the act that the server has not acknowledged
let busy = false;
let poll = null;
let lastSign = 0; // when the server last heard that the comparison on the screen is being judged

putTexts(root);
const drafts = makeDrafts("compare");
const clock = makeClock(isInSight);
const guide = makeGuide(root);
const form = makeJudgingForm(root, {
  submit: (act) => { if (!busy && root.dataset.state === "ready") send({ name: "judge", says: saysOf(act, shown.answers.length), data: { presentation_id: shown.presentation_id, ...act, timing: clock.timing() } }); },
  changed: keepDraft,
  undo,
  guided: guide.isThere,
});
form.acts.retry = () => { if (unsent && !busy) send(unsent); };
form.acts["sign-in"] = () => location.reload();
form.acts.guidelines = guide.toggle;

// ---- what is on the screen

function isInSight() {
  return document.visibilityState === "visible" && root.checkVisibility();
}

function setState(state) {
  root.dataset.state = state;
  form.setEnabled(state === "ready", state === "ready" || state === "empty");
}

function paint(view, draft = null) {
  clearTimeout(poll);
  byTest("judged-count").textContent = view.count;
  guide.paint(view.guidelines);
  const empty = view.state !== "comparison";
  find(".rl-empty-page").hidden = !empty;
  find(".rl-layout").hidden = empty;
  byTest("flag-button").hidden = empty || !view.asks.flags;
  if (empty) {
    shown = null;
    delete root.dataset.presentation;
    form.closeSkip();
    find(".rl-empty-page h2").textContent = view.title;
    find(".rl-empty-page p").textContent = view.note;
    setState("empty");
    poll = setTimeout(load, POLL_MS, true);
    return;
  }
  shown = view;
  const kept = draft ?? drafts.find(view.presentation_id);
  form.paint(view, kept);
  clock.start(kept?.timing);
  lastSign = performance.now();
  root.dataset.presentation = view.presentation_id;
  setState("settling");
  setTimeout(() => { if (root.dataset.state === "settling") setState("ready"); }, SETTLE_MS);
}

function problem(message, { retry = false, signIn = false } = {}) {
  const box = byTest("problem");
  box.hidden = !message;
  box.querySelector("span").textContent = message;
  byTest("retry").hidden = !retry;
  byTest("sign-in").hidden = !signIn;
  if (signIn) byTest("sign-in").focus();
  else if (retry) byTest("retry").focus();
}

function notice(message) {
  byTest("notice").hidden = !message;
  byTest("notice").textContent = message;
}

function noteSaved(message) {
  const note = byTest("saved-note");
  note.textContent = message ? ` · ${message}` : "";
  note.classList.add("rl-shown");
  setTimeout(() => note.classList.remove("rl-shown"), 900);
}

function toTop() {
  root.focus({ preventScroll: true });
  window.scrollTo({ top: 0, behavior: "instant" });
}

function keepDraft() {
  if (!shown) return;
  // Time goes on counting after a reload, too.
  drafts.keep(shown.presentation_id, { ...form.draft(), timing: clock.timing() });
}

// ---- talking to the server

const withGuidelines = (data) => ({ ...data, guidelines: guide.known() });

// `again`: nobody asked for it, so it is left for a page that is in sight.
async function load(again = false) {
  if (!root.isConnected) return;
  if (busy || (again && shown)) return;
  if (again && !isInSight()) {
    poll = setTimeout(load, POLL_MS, true);
    return;
  }
  try {
    const view = await ask("next_comparison", withGuidelines({}));
    problem(view.problem ?? "");
    if (view.problem) {
      poll = setTimeout(load, POLL_MS, again);
      return;
    }
    paint(view);
    if (again && shown) form.announce(t("compare.is_ready"));
  } catch (error) {
    if (error instanceof Refusal) {
      problem(error.message, { signIn: error.signedOut });
      setState("refused");
      return;
    }
    problem(t("compare.trying_again"));
    poll = setTimeout(load, POLL_MS, again);
  }
}

async function send(act) {
  busy = true;
  unsent = act;
  if (act.name === "judge") keepDraft();
  setState("saving");
  problem("");
  notice("");
  try {
    const reply = await ask(act.name, withGuidelines(act.data));
    if (reply.mend) {
      // To send it once more as it is would be of no use.
      unsent = null;
      setState(shown ? "ready" : "empty");
      problem(reply.problem);
      return;
    }
    if (!reply.next) throw new Refusal(reply.problem, false);
    unsent = null;
    settle(act, reply);
  } catch (error) {
    fail(act, error);
  } finally {
    busy = false;
  }
}

function settle(act, reply) {
  // What was taken back is on the form again, and its time begins anew.
  const kept = act.name === "undo" ? drafts.find(reply.next.presentation_id) : null;
  paint(reply.next, kept && { ...kept, timing: undefined });
  problem(reply.lost ? "" : reply.problem ?? "");
  // A refused draft stays as long as it might still be of use: the comparison may come back.
  notice(reply.lost ? reply.problem : "");
  const done = reply.problem ?? reply.says ?? act.says;
  noteSaved(reply.problem ? "" : done);
  const then = act.name === "judge" && t(shown ? "compare.next" : "compare.none_waiting");
  form.announce(`${done}. ${then || ""}`);
  toTop();
}

function fail(act, error) {
  form.closeSkip();
  if (error instanceof Refusal) {
    setState("unsent");
    problem(error.signedOut ? t("compare.kept_here", { why: error.message }) : error.message, { retry: true, signIn: error.signedOut });
    return;
  }
  if (act.name === "undo") {
    // A second undo would take back one more: look at what the server has instead of asking again.
    unsent = null;
    problem(t("compare.undo_unsure"));
    poll = setTimeout(load, POLL_MS);
    return;
  }
  setState("unsent");
  problem(t("compare.unsent", { choice: act.says }), { retry: true });
}

function undo() {
  if (busy || !["ready", "empty"].includes(root.dataset.state)) return;
  send({ name: "undo", data: {}, says: t("compare.undone") });
}

// ---- the lease

// A sign of life while somebody is at work; after a long absence the question whether the comparison is still ours.
async function renew() {
  const about = shown.presentation_id;
  lastSign = performance.now();
  let reply;
  try {
    reply = await ask("renew", { presentation_id: about });
  } catch {
    return; // Whether it is too late is decided when the judgment is saved.
  }
  if (reply.ours || busy || shown?.presentation_id !== about) return;
  await load();
  if (shown?.presentation_id !== about) notice(t("compare.taken"));
}

async function comeBack() {
  if (!isInSight() || root.dataset.state !== "ready" || performance.now() - lastSign < BEAT_MS) return;
  setState("checking");
  await renew();
  if (root.dataset.state === "checking") setState("ready");
}

const beat = setInterval(() => {
  if (!root.isConnected) return clearInterval(beat);
  if (shown && root.dataset.state === "ready" && clock.isActive() && performance.now() - lastSign >= BEAT_MS) renew();
}, LOOK_MS);

// ---- hands

function onKey(event) {
  if (!root.isConnected) {
    document.removeEventListener("keydown", onKey);
    return;
  }
  if (event.repeat || event.isComposing || !isInSight()) return;
  const key = event.key.toLowerCase();
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey && !isTyping(event.target);
  if (key === "g" && plain && guide.isThere()) {
    event.preventDefault();
    return guide.toggle();
  }
  if (form.key(event, key)) event.preventDefault();
}

document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", comeBack);
window.addEventListener("pagehide", keepDraft);
load();

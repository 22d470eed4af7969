// @ts-check
// The Compare page: fetches comparisons, sends judgments, and keeps a draft of what was begun.

import { makeClock } from "./clock.js";
import { byTestId, find, isTyping, isVisible, make, putTexts, targetOf } from "./dom.js";
import { keepForCorrection, makeDrafts, makeUnsent } from "./drafts.js";
import { makeGuidelines } from "./guidelines.js";
import { t } from "./i18n.js";
import { SETTLE_MS, describeJudgment, makeJudgingForm } from "./judging_form.js";
import { makePractice } from "./practice.js";
import { makeResend } from "./resend.js";
import { Refusal } from "./server.js";

/** @typedef {import("./types.js").ComparisonView} ComparisonView */
/** @typedef {import("./types.js").Draft} Draft */
/** @typedef {import("./types.js").Saved} Saved */

/**
 * A request that changes something: a judgment or an undo.
 * @typedef {{ name: "judge" | "undo", message: string, data: object }} Action
 */

const POLL_MS = 2000;
const RENEW_EVERY_MS = 60000;
const RENEW_CHECK_MS = 10000;
const NOTE_MS = 900;

/**
 * @param {HTMLElement} root
 * @param {import("./types.js").Ask} ask
 */
export function startCompare(root, ask) {
  /** @type {ComparisonView | null} The comparison on the page. */
  let shown = null;
  /** @type {Action | null} The action that the server has not acknowledged. */
  let unsent = null;
  /** The same over a reload, unless the server has refused it. */
  const kept = makeUnsent("compare");
  let busy = false;
  /** @type {number | undefined} */
  let poll;
  /** @type {number | undefined} */
  let fade;
  /** Time of the last renewal of the lease. */
  let renewedAt = 0;

  putTexts(root);
  const visible = () => isVisible(root);
  const drafts = makeDrafts("compare");
  const clock = makeClock(visible);
  const guidelines = makeGuidelines(root);
  const form = makeJudgingForm(root, { submit, changed: saveDraft, undo, hasGuidelines: guidelines.exist });
  const practice = makePractice(root, form);
  const resend = makeResend(sendAgain);
  form.acts.retry = sendAgain;
  form.acts["sign-in"] = () => location.reload();
  form.acts.guidelines = guidelines.toggle;
  form.acts["end-practice"] = endPractice;

  // ---- the page

  /** @param {string} state */
  function setState(state) {
    root.dataset.state = state;
    form.setEnabled(state === "ready" || state === "practice", state === "ready" || state === "empty");
  }

  /** @param {string} state */
  const isState = (state) => root.dataset.state === state;

  /** @param {import("./types.js").View} view @param {Draft | null} [draft] */
  function render(view, draft = null) {
    clearTimeout(poll);
    byTestId(root, "judged-count").textContent = view.count;
    guidelines.render(view.guidelines);
    const empty = view.state === "empty";
    find(root, ".rl-empty-page").hidden = !empty;
    find(root, ".rl-layout").hidden = empty;
    const practises = !empty && practice.isDue(view);
    byTestId(root, "flag-button").hidden = empty || practises || !view.inputs.flags;
    if (empty) renderEmpty(view);
    else if (practises) startPractice(view);
    else renderComparison(view, draft ?? drafts.get(view.presentation_id));
  }

  /** @param {ComparisonView} view the comparison that waits meanwhile */
  function startPractice(view) {
    shown = null;
    delete root.dataset.presentation;
    practice.start(view);
    setState("practice");
  }

  function endPractice() {
    practice.end();
    setState("loading");
    load();
  }

  /** @param {import("./types.js").EmptyView} view */
  function renderEmpty({ title, note }) {
    shown = null;
    delete root.dataset.presentation;
    form.closeSkip();
    find(root, ".rl-empty-page h2").textContent = title;
    find(root, ".rl-empty-page p").textContent = note;
    setState("empty");
    pollAgain(true);
  }

  /** @param {ComparisonView} view @param {Draft | null} draft */
  function renderComparison(view, draft) {
    shown = view;
    form.render(view, draft);
    clock.start(draft?.timing);
    renewedAt = performance.now();
    root.dataset.presentation = view.presentation_id;
    setState("settling");
    setTimeout(() => {
      if (isState("settling")) setState("ready");
    }, SETTLE_MS);
  }

  /** @param {string} message @param {{ retry?: boolean, signIn?: boolean }} [buttons] */
  function showProblem(message, { retry = false, signIn = false } = {}) {
    const box = byTestId(root, "problem");
    box.hidden = !message;
    find(box, "span").textContent = message;
    byTestId(root, "retry").hidden = !retry;
    byTestId(root, "sign-in").hidden = !signIn;
    if (signIn) byTestId(root, "sign-in").focus();
    else if (retry) byTestId(root, "retry").focus();
  }

  /** @param {string} message @param {{ stays?: boolean }} [options] whether it stays until the next one */
  function showSaved(message, { stays = false } = {}) {
    const note = byTestId(root, "saved-note");
    clearTimeout(fade);
    note.textContent = message ? ` · ${message}` : "";
    note.classList.add("rl-shown");
    if (!stays) fade = window.setTimeout(() => note.classList.remove("rl-shown"), NOTE_MS);
  }

  function scrollToTop() {
    root.focus({ preventScroll: true });
    window.scrollTo({ top: 0, behavior: "instant" });
  }

  function saveDraft() {
    // With the time so far, which goes on after a reload.
    if (shown) drafts.set(shown.presentation_id, { ...form.draft(), timing: clock.timing() });
  }

  // ---- requests

  /**
   * Every request says which version of the guidelines the page has, and when its day begins.
   * @param {object} [data]
   */
  const withPage = (data = {}) => ({ ...data, guidelines: guidelines.version(), minutes_east: -new Date().getTimezoneOffset() });

  /** @param {boolean} unasked whether the request is made without the user's action */
  function pollAgain(unasked) {
    poll = window.setTimeout(() => load(unasked), POLL_MS);
  }

  /** Fetches a comparison. An unasked request waits until the page is visible. */
  async function load(unasked = false) {
    if (!root.isConnected || busy || (unasked && shown)) return;
    if (unasked && !visible()) return pollAgain(true);
    try {
      const reply = await ask("next_comparison", withPage());
      if ("problem" in reply) {
        showProblem(reply.problem);
        return pollAgain(unasked);
      }
      showProblem("");
      render(reply);
      if (unasked && shown) form.announce(t("compare.is_ready"));
    } catch (error) {
      if (error instanceof Refusal) {
        showProblem(error.message, { signIn: error.signedOut });
        return setState("refused");
      }
      showProblem(t("compare.trying_again"));
      pollAgain(unasked);
    }
  }

  /** @param {import("./types.js").Judgment} judgment */
  function submit(judgment) {
    if (isState("practice")) return practice.judge(judgment);
    if (busy || !shown || !isState("ready")) return;
    const message = describeJudgment(judgment, shown.answers.length);
    send({ name: "judge", message, data: { presentation_id: shown.presentation_id, ...judgment, timing: clock.timing() } });
  }

  function undo() {
    if (busy || !(isState("ready") || isState("empty"))) return;
    send({ name: "undo", message: t("compare.undone"), data: {} });
  }

  function sendAgain() {
    if (unsent && !busy) send(unsent, { again: true });
  }

  /** @param {Action} action @param {{ again?: boolean }} [options] whether the page says already that it was not saved */
  async function send(action, { again = false } = {}) {
    busy = true;
    unsent = action;
    if (action.name === "judge") saveDraft();
    setState("saving");
    if (!again) showProblem("");
    form.showNotice("");
    try {
      accept(action, await ask(action.name, withPage(action.data)));
    } catch (error) {
      onFailure(action, error);
    } finally {
      busy = false;
    }
  }

  /** @param {Action} action @param {Saved} reply */
  function accept(action, reply) {
    if (reply.fixable) {
      // Sending the same request again would be of no use.
      settle();
      setState(shown ? "ready" : "empty");
      showProblem(reply.problem ?? "");
      if (!shown) pollAgain(false);
      return;
    }
    if (!reply.next) throw new Refusal(reply.problem ?? "", false);
    settle();
    if (reply.stored && shown) keepForCorrection(reply.stored, drafts.get(shown.presentation_id));
    render(reply.next, reply.undone);
    const { problem = "" } = reply;
    // The draft of a late judgment is kept: the comparison may be shown again.
    const isNotice = reply.lease_over || reply.stored !== undefined;
    showProblem(isNotice ? "" : problem);
    form.showNotice(isNotice ? problem : "", reply.stored);
    const message = reply.message ?? action.message;
    showSaved(problem ? "" : message, { stays: action.name === "undo" });
    const following = action.name === "judge" ? t(shown ? "compare.next" : "compare.none_waiting") : "";
    form.announce(`${problem || message}. ${following}`);
    scrollToTop();
  }

  /** The server has answered the last action. */
  function settle() {
    unsent = null;
    kept.clear();
    resend.stop();
  }

  /** @param {Action} action @param {unknown} error */
  function onFailure(action, error) {
    form.closeSkip();
    if (error instanceof Refusal) {
      kept.clear();
      resend.stop();
      setState("unsent");
      const message = error.signedOut ? t("compare.kept_here", { why: error.message }) : error.message;
      return showProblem(message, { retry: true, signIn: error.signedOut });
    }
    if (action.name === "undo") {
      // A second undo could withdraw one more judgment, so the page looks at what the server has instead.
      unsent = null;
      showProblem(t("compare.undo_unsure"));
      return pollAgain(false);
    }
    kept.set(action);
    setState("unsent");
    // Only the first time, because showing it moves the focus.
    if (!resend.isOn()) showProblem(t("compare.unsent", { choice: action.message }), { retry: true });
    resend.later();
  }

  // ---- the lease

  /** Renews the lease; if somebody else has the comparison meanwhile, shows another one. */
  async function renew() {
    if (!shown) return;
    const { presentation_id } = shown;
    const isStillShown = () => shown?.presentation_id === presentation_id;
    renewedAt = performance.now();
    let reply;
    try {
      reply = await ask("renew", { presentation_id });
    } catch {
      return; // The server checks the lease again when the judgment is saved.
    }
    const held = !("problem" in reply) && reply.held;
    if (held || busy || !isStillShown()) return;
    await load();
    if (!isStillShown()) form.showNotice(t("compare.taken"));
  }

  const isRenewalDue = () => performance.now() - renewedAt >= RENEW_EVERY_MS;

  async function onVisibility() {
    if (!visible() || !isState("ready") || !isRenewalDue()) return;
    setState("checking");
    await renew();
    if (isState("checking")) setState("ready");
  }

  const renewals = setInterval(() => {
    if (!root.isConnected) clearInterval(renewals);
    else if (shown && isState("ready") && clock.isActive() && isRenewalDue()) renew();
  }, RENEW_CHECK_MS);

  // ---- the skip link

  /** Made before everything else on the page, as the first thing that Tab reaches; the tabs of other pages do not have it. */
  function makeSkipLink() {
    const answers = find(root, ".rl-answers");
    answers.id = "answers";
    answers.tabIndex = -1;
    document.querySelector(".rl-skip-link")?.remove();
    const link = make("a", { class: "rl-skip-link", href: "#answers", testid: "skip-link", hidden: true }, t("compare.skip_link"));
    link.addEventListener("click", (event) => {
      // The address names pages.
      event.preventDefault();
      answers.focus();
      answers.scrollIntoView({ block: "start" });
    });
    document.body.prepend(link);
    new IntersectionObserver((entries) => {
      link.hidden = !entries.at(-1)?.isIntersecting;
    }).observe(root);
  }

  // ---- events

  /** @param {KeyboardEvent} event */
  function onKeyDown(event) {
    if (!root.isConnected) return document.removeEventListener("keydown", onKeyDown);
    if (event.repeat || event.isComposing || !visible()) return;
    const key = event.key.toLowerCase();
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey && !isTyping(targetOf(event));
    if (key === "g" && isPlain && guidelines.exist()) {
      event.preventDefault();
      guidelines.toggle();
    } else if (form.onKey(event, key)) event.preventDefault();
  }

  document.addEventListener("keydown", onKeyDown);
  document.addEventListener("visibilitychange", onVisibility);
  window.addEventListener("pagehide", saveDraft);
  makeSkipLink();
  const before = /** @type {Action | null} */ (kept.get());
  if (before) send(before);
  else load();
}

// @ts-check
// The History page: an annotator's own judgments, searched and corrected in the form that they were given in.

import { hasParts, setPlace } from "./addresses.js";
import { makeClock } from "./clock.js";
import { byTestId, closest, find, isTyping, isVisible, make, putTexts, targetOf } from "./dom.js";
import { keepForCorrection, makeDrafts } from "./drafts.js";
import { LANGUAGE, t } from "./i18n.js";
import { makeJudgingForm } from "./judging_form.js";
import { Refusal } from "./server.js";

/** @typedef {import("./types.js").Judgment} Judgment */
/** @typedef {import("./types.js").PastRow} PastRow */
/** @typedef {import("./types.js").PastView} PastView */

/**
 * The judgment that is being corrected.
 * @typedef {object} Correction
 * @property {PastView} view
 * @property {HTMLElement} box
 * @property {import("./judging_form.js").JudgingForm} form
 * @property {ReturnType<typeof makeClock>} clock
 * @property {object | null} unsent the request that the server has not acknowledged
 */

const SEARCH_AFTER_MS = 250;
const RETRY_AFTER_MS = 2000;

/** @param {string} iso */
function timeElement(iso) {
  const moment = new Date(iso);
  const isToday = moment.toDateString() === new Date().toDateString();
  const text = isToday
    ? moment.toLocaleTimeString(LANGUAGE, { hour: "numeric", minute: "2-digit" })
    : moment.toLocaleDateString(LANGUAGE, { day: "numeric", month: "short", year: "numeric" });
  return make("time", { datetime: iso, title: moment.toLocaleString(LANGUAGE) }, text);
}

/** @param {import("./types.js").Exclusion} exclusion */
function exclusionElement({ rule, reason }) {
  return make("span", { class: "rl-exclusion-reason" }, t("history.why_not", { rule, reason }));
}

/** @param {PastRow} row */
function rowElement({ id, at, prompt, verdict, marks, excluded }) {
  const summary = make(
    "span", { class: "rl-judgment-summary" },
    make("b", {}, verdict), marks.map((mark) => make("span", {}, mark)), excluded && exclusionElement(excluded),
  );
  const button = make(
    "button", { type: "button", "data-open": id },
    make("span", { class: "rl-judgment-prompt", dir: "auto" }, prompt), timeElement(at), summary,
  );
  return make("li", { "data-judgment": id, testid: "past-judgment" }, button);
}

/**
 * @param {HTMLElement} root
 * @param {import("./types.js").Ask} ask
 */
export function startHistory(root, ask) {
  const listView = find(root, ".rl-history-list");
  const filters = find(root, ".rl-filters", HTMLFormElement);
  const list = find(root, ".rl-judgment-list");
  const loadMore = byTestId(root, "older");
  /** @type {string | null} Where the next page begins. */
  let older = null;
  /** The number of the newest request; replies to earlier ones are ignored. */
  let newest = 0;
  /** @type {Correction | null} */
  let open = null;
  /** @type {string | null} The id of the row that was opened. */
  let openedId = null;
  /** @type {string | null} The id of the row that is being fetched. */
  let awaited = null;
  /** @type {number | undefined} */
  let pendingSearch;

  putTexts(root);
  const visible = () => isVisible(root);
  const drafts = makeDrafts("history");

  // ---- the list

  function filterValues() {
    const values = new FormData(filters);
    return {
      text: byTestId(root, "history-search", HTMLInputElement).value,
      verdict: values.get("rl-verdict") || null,
      flagged: values.has("flagged"),
      excluded: values.has("excluded"),
    };
  }

  /** @param {string} message */
  function showProblem(message) {
    const box = byTestId(root, "history-problem");
    box.hidden = !message;
    find(box, "span").textContent = message;
  }

  /** Shows why the list is empty, if it is. */
  function renderEmpty() {
    const { text, verdict, flagged, excluded } = filterValues();
    const filtered = text.trim() || verdict || flagged || excluded;
    const box = byTestId(root, "history-empty");
    box.hidden = list.children.length > 0;
    list.hidden = !box.hidden;
    find(box, "h2").textContent = t(filtered ? "history.no_match_title" : "history.none_title");
    find(box, "p").textContent = t(filtered ? "history.no_match_note" : "history.none_note");
  }

  /** @param {number} [delay] */
  function searchLater(delay = SEARCH_AFTER_MS) {
    clearTimeout(pendingSearch);
    pendingSearch = window.setTimeout(search, delay);
  }

  /** Lists the judgments that match the filters, from the first page on. */
  const search = () => loadPage(null);

  /** @param {string | null} before where the page begins */
  async function loadPage(before) {
    newest += 1;
    const request = newest;
    clearTimeout(pendingSearch);
    try {
      const reply = await ask("past_judgments", { ...filterValues(), before });
      if (request !== newest) return;
      if ("problem" in reply) return showProblem(reply.problem);
      showProblem("");
      renderPage(reply.rows, before === null);
      older = reply.older;
      loadMore.hidden = older === null;
    } catch (error) {
      if (request === newest) showProblem(error instanceof Refusal ? error.message : t("compare.trying_again"));
      if (!(error instanceof Refusal)) searchLater(RETRY_AFTER_MS);
    }
  }

  /** @param {PastRow[]} rows @param {boolean} isFirst */
  function renderPage(rows, isFirst) {
    const elements = rows.map(rowElement);
    if (isFirst) list.replaceChildren(...elements);
    else list.append(...elements);
    renderEmpty();
    root.dataset.state = "list";
    if (!isFirst) elements[0]?.querySelector("button")?.focus();
  }

  // ---- a correction

  /** @param {string} judgmentId */
  async function openJudgment(judgmentId) {
    let reply;
    awaited = judgmentId;
    try {
      reply = await ask("past_judgment", { judgment_id: judgmentId });
    } catch (error) {
      return showProblem(error instanceof Refusal ? error.message : t("compare.trying_again"));
    } finally {
      awaited = null;
    }
    if ("problem" in reply) return showProblem(reply.problem);
    showProblem("");
    if (open) close(open);
    openedId = judgmentId;
    open = makeCorrection(reply.view);
    listView.hidden = true;
    root.dataset.state = "open";
    setPlace("history", judgmentId);
    render(open);
  }

  /** @param {PastView} view @returns {Correction} */
  function makeCorrection(view) {
    const box = /** @type {HTMLElement} */ (find(root, "template", HTMLTemplateElement).content.firstElementChild?.cloneNode(true));
    putTexts(box);
    root.append(box);
    const form = makeJudgingForm(box, { submit: (judgment) => submit(correction, judgment), changed: () => saveDraft(correction), correcting: true });
    /** @type {Correction} */
    const correction = { view, box, form, clock: makeClock(visible), unsent: null };
    form.acts.back = () => goBack(correction);
    form.acts.retry = () => {
      if (correction.unsent) send(correction, correction.unsent);
    };
    form.acts["sign-in"] = () => location.reload();
    return correction;
  }

  /** @param {Correction} correction */
  function render(correction) {
    const { view, box, form, clock } = correction;
    const { verdict, excluded } = view.row;
    byTestId(box, "flag-button").hidden = !view.inputs.flags;
    byTestId(box, "before").replaceChildren(t("history.correcting", { verdict }), ...(excluded ? [exclusionElement(excluded)] : []));
    const draft = drafts.get(view.judgment_id);
    form.render(view, { ...view.judgment, ...draft });
    clock.start(draft?.timing);
    setState(correction, "ready");
    box.focus({ preventScroll: true });
    window.scrollTo({ top: 0, behavior: "instant" });
  }

  /** @param {Correction} correction @param {string} state */
  function setState({ box, form }, state) {
    box.dataset.state = state;
    form.setEnabled(state === "ready", false);
  }

  /** @param {Correction} correction */
  function saveDraft({ view, box, form, clock }) {
    if (box.dataset.state === "ready") drafts.set(view.judgment_id, { ...form.draft(), timing: clock.timing() });
  }

  /** @param {Correction} correction @param {string} message @param {{ retry?: boolean, signIn?: boolean }} [buttons] */
  function showFormProblem({ box }, message, { retry = false, signIn = false } = {}) {
    const problem = byTestId(box, "problem");
    problem.hidden = !message;
    find(problem, "span").textContent = message;
    byTestId(problem, "retry").hidden = !retry;
    byTestId(problem, "sign-in").hidden = !signIn;
  }

  /** @param {Correction} correction @param {Judgment} judgment */
  function submit(correction, judgment) {
    send(correction, { judgment_id: correction.view.judgment_id, ...judgment, timing: correction.clock.timing() });
  }

  /** @param {Correction} correction @param {object} request */
  async function send(correction, request) {
    if (correction.box.dataset.state === "saving") return;
    correction.unsent = request;
    setState(correction, "saving");
    showFormProblem(correction, "");
    try {
      const reply = await ask("correct", request);
      if ("problem" in reply) {
        setState(correction, "ready");
        if (!reply.stored) return showFormProblem(correction, reply.problem);
        keepForCorrection(reply.stored, correction.form.draft());
        return correction.form.showNotice(reply.problem, reply.stored);
      }
      accept(correction, reply);
    } catch (error) {
      setState(correction, "unsent");
      const signIn = error instanceof Refusal && error.signedOut;
      const message = error instanceof Refusal ? t("compare.kept_here", { why: error.message }) : t("history.unsent");
      showFormProblem(correction, message, { retry: true, signIn });
    }
  }

  /** @param {Correction} correction @param {{ row: PastRow, replaces: string }} reply */
  function accept(correction, { row, replaces }) {
    drafts.remove(correction.view.judgment_id);
    list.querySelector(`[data-judgment="${replaces}"]`)?.replaceWith(rowElement(row));
    // The annotator may have gone back to the list, or opened another judgment, while this one was saved.
    if (open === correction) {
      openedId = row.id;
      close(correction);
      setPlace("history");
    }
    byTestId(root, "history-live").textContent = `${t("history.corrected")}. ${row.verdict}.`;
  }

  /** @param {Correction} correction */
  function goBack(correction) {
    saveDraft(correction);
    close(correction);
    setPlace("history");
  }

  /** @param {Correction} correction */
  function close(correction) {
    correction.form.end();
    correction.clock.end();
    correction.box.remove();
    open = null;
    listView.hidden = false;
    root.dataset.state = "list";
    const button = /** @type {HTMLElement | null} */ (list.querySelector(`[data-open="${openedId}"]`));
    (button ?? root).focus();
    button?.scrollIntoView({ block: "nearest" });
  }

  // ---- events

  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  filters.addEventListener("change", (event) => {
    if (!targetOf(event).matches("[type=search]")) search();
  });
  filters.addEventListener("input", (event) => {
    if (targetOf(event).matches("[type=search]")) searchLater();
  });
  loadMore.addEventListener("click", () => loadPage(older));
  list.addEventListener("click", (event) => {
    const judgmentId = closest(targetOf(event), "[data-open]")?.dataset.open;
    if (judgmentId) openJudgment(judgmentId);
  });

  /** @param {KeyboardEvent} event */
  function onKeyDown(event) {
    if (!root.isConnected) return document.removeEventListener("keydown", onKeyDown);
    if (!open || event.repeat || event.isComposing || !visible()) return;
    const key = event.key.toLowerCase();
    if (open.form.onKey(event, key)) event.preventDefault();
    else if (key === "escape" && !isTyping(targetOf(event)) && !open.box.querySelector("dialog[open]")) goBack(open);
  }

  document.addEventListener("keydown", onKeyDown);
  hasParts("history", {
    current: () => open && openedId,
    open(judgmentId) {
      if (judgmentId === (open && openedId) || (judgmentId !== null && judgmentId === awaited)) return;
      if (judgmentId !== null) openJudgment(judgmentId);
      else if (open) goBack(open);
    },
  });

  // The list is loaded whenever the tab is opened, because judgments may have been given meanwhile.
  new IntersectionObserver((entries) => {
    if (entries.at(-1)?.isIntersecting && !open) search();
  }).observe(root);
}

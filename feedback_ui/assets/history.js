// The History page: one's own judgments, found again and corrected on the same form that they were given on.

const TYPED_MS = 250;

const root = element.querySelector(".rl-history");
const byTest = (name) => root.querySelector(`[data-testid="${name}"]`);
const archive = root.querySelector(".rl-history-list");
const filters = root.querySelector(".rl-filters");
const list = root.querySelector(".rl-judgment-list");

let older = null; // where the next page begins
let asked = 0; // the newest question; answers to older ones come too late
let open = null; // the judgment that is being corrected: { view, form, clock, box }
let opener = null; // the id of the row that was opened
let typing = null;

putTexts(root);
const drafts = makeDrafts("history");

function isInSight() {
  return document.visibilityState === "visible" && root.checkVisibility();
}

// ---- the list

function wanted() {
  const said = new FormData(filters);
  return {
    text: byTest("history-search").value, verdict: said.get("rl-verdict") || null, flagged: said.has("flagged"), excluded: said.has("excluded"),
  };
}

function when(iso) {
  const moment = new Date(iso);
  const today = moment.toDateString() === new Date().toDateString();
  const text = today
    ? moment.toLocaleTimeString(LANGUAGE, { hour: "numeric", minute: "2-digit" })
    : moment.toLocaleDateString(LANGUAGE, { day: "numeric", month: "short", year: "numeric" });
  return make("time", { datetime: iso, title: moment.toLocaleString(LANGUAGE) }, text);
}

function rowContent({ at, prompt, verdict, marks, excluded }) {
  return [
    make("span", { class: "rl-judgment-prompt", dir: "auto" }, prompt),
    when(at),
    make(
      "span", { class: "rl-judgment-summary" },
      make("b", {}, verdict), marks.map((mark) => make("span", {}, mark)),
      excluded ? make("span", { class: "rl-exclusion-reason" }, t("history.why_not", excluded)) : null,
    ),
  ];
}

function row(past) {
  return make("li", { "data-judgment": past.id, testid: "past-judgment" }, make("button", { type: "button", "data-open": past.id }, rowContent(past)));
}

function problem(message) {
  const box = byTest("history-problem");
  box.hidden = !message;
  box.querySelector("span").textContent = message;
}

function showEmpty() {
  const { text, verdict, flagged, excluded } = wanted();
  const filtered = text.trim() || verdict || flagged || excluded;
  const box = byTest("history-empty");
  box.hidden = list.children.length > 0;
  list.hidden = !box.hidden;
  box.querySelector("h2").textContent = t(filtered ? "history.no_match_title" : "history.none_title");
  box.querySelector("p").textContent = t(filtered ? "history.no_match_note" : "history.none_note");
}

async function look(before = null) {
  const question = (asked += 1);
  clearTimeout(typing);
  try {
    const reply = await ask("past_judgments", { ...wanted(), before });
    if (question !== asked) return;
    if (reply.problem) return problem(reply.problem);
    problem("");
    const rows = reply.rows.map(row);
    if (before === null) list.replaceChildren(...rows);
    else list.append(...rows);
    older = reply.older;
    byTest("older").hidden = older === null;
    showEmpty();
    root.dataset.state = "list";
    if (before !== null) rows[0]?.querySelector("button").focus();
  } catch (error) {
    if (question === asked) problem(error instanceof Refusal ? error.message : t("compare.trying_again"));
    if (!(error instanceof Refusal)) typing = setTimeout(look, 2000);
  }
}

// ---- one judgment

async function openOne(judgmentId) {
  let reply;
  try {
    reply = await ask("past_judgment", { judgment_id: judgmentId });
  } catch (error) {
    return problem(error instanceof Refusal ? error.message : t("compare.trying_again"));
  }
  if (reply.problem) return problem(reply.problem);
  problem("");
  if (open) close();
  opener = judgmentId;
  const box = root.querySelector("template").content.firstElementChild.cloneNode(true);
  putTexts(box);
  root.append(box);
  archive.hidden = true;
  root.dataset.state = "open";
  const clock = makeClock(isInSight);
  const form = makeJudgingForm(box, { submit: send, changed: keepDraft, correcting: true });
  open = { view: reply.view, box, clock, form, unsent: null };
  form.acts.back = back;
  form.acts.retry = () => { if (open.unsent) post(open.unsent); };
  form.acts["sign-in"] = () => location.reload();
  paint();
}

function paint() {
  const { view, box, form, clock } = open;
  const { row: past, said } = view;
  box.querySelector("[data-testid=flag-button]").hidden = !view.asks.flags;
  box.querySelector("[data-testid=before]").replaceChildren(
    t("history.correcting", { verdict: past.verdict }),
    ...(past.excluded ? [make("span", { class: "rl-exclusion-reason" }, t("history.why_not", past.excluded))] : []),
  );
  const kept = drafts.find(view.judgment_id);
  form.paint(view, { ...said, ...kept });
  clock.start(kept?.timing);
  setOpenState("ready");
  box.focus({ preventScroll: true });
  window.scrollTo({ top: 0, behavior: "instant" });
}

function setOpenState(state) {
  open.box.dataset.state = state;
  open.form.setEnabled(state === "ready", false);
}

function keepDraft() {
  if (open?.box.dataset.state === "ready") drafts.keep(open.view.judgment_id, { ...open.form.draft(), timing: open.clock.timing() });
}

function showFormProblem(message, { retry = false, signIn = false } = {}) {
  const box = open.box.querySelector("[data-testid=problem]");
  box.hidden = !message;
  box.querySelector("span").textContent = message;
  box.querySelector("[data-testid=retry]").hidden = !retry;
  box.querySelector("[data-testid=sign-in]").hidden = !signIn;
}

function send(act) {
  post({ judgment_id: open.view.judgment_id, ...act, timing: open.clock.timing() });
}

async function post(act) {
  if (open.box.dataset.state === "saving") return;
  open.unsent = act;
  setOpenState("saving");
  showFormProblem("");
  try {
    const reply = await ask("correct", act);
    if (reply.problem) {
      setOpenState("ready");
      return showFormProblem(reply.problem);
    }
    drafts.drop(act.judgment_id);
    const line = list.querySelector(`[data-judgment="${reply.replaces}"]`);
    line?.replaceWith(row(reply.row));
    opener = reply.row.id;
    close();
    byTest("history-live").textContent = `${t("history.corrected")}. ${reply.row.verdict}.`;
  } catch (error) {
    setOpenState("unsent");
    const refused = error instanceof Refusal;
    showFormProblem(refused ? t("compare.kept_here", { why: error.message }) : t("history.unsent"), { retry: true, signIn: refused && error.signedOut });
  }
}

function back() {
  keepDraft();
  close();
}

function close() {
  open.form.end();
  open.clock.end();
  open.box.remove();
  open = null;
  archive.hidden = false;
  root.dataset.state = "list";
  const button = list.querySelector(`[data-open="${opener}"]`);
  (button ?? root).focus();
  button?.scrollIntoView({ block: "nearest" });
}

// ---- hands

filters.addEventListener("submit", (event) => { event.preventDefault(); look(); });
filters.addEventListener("change", (event) => { if (event.target.type !== "search") look(); });
filters.addEventListener("input", (event) => {
  if (event.target.type !== "search") return;
  clearTimeout(typing);
  typing = setTimeout(look, TYPED_MS);
});
byTest("older").addEventListener("click", () => look(older));
list.addEventListener("click", (event) => {
  const button = event.target.closest("[data-open]");
  if (button) openOne(button.dataset.open);
});

function onKey(event) {
  if (!root.isConnected) {
    document.removeEventListener("keydown", onKey);
    return;
  }
  if (!open || event.repeat || event.isComposing || !isInSight()) return;
  const key = event.key.toLowerCase();
  if (open.form.key(event, key)) event.preventDefault();
  else if (key === "escape" && !isTyping(event.target) && !open.box.querySelector("dialog[open]")) back();
}

document.addEventListener("keydown", onKey);

// The page is looked at when its tab is opened, and again each time: judgments were given meanwhile.
new IntersectionObserver((seen) => {
  if (seen.at(-1).isIntersecting && !open) look();
}).observe(root);

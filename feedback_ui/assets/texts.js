// Texts in the reader's language, by the rule that the server has too: the first wish counts. And the one way to make
// an element. `TEXTS` stands above, put there when the page was built. HTML in a reply was made safe by the server; all
// else is set as text.

const WISH = navigator.language.split("-")[0].toLowerCase();
const LANGUAGE = WISH in TEXTS ? WISH : "en";

function t(key, values = {}) {
  const texts = TEXTS[LANGUAGE];
  const text = texts[key] ?? texts[`${key}.${values.count === 1 && LANGUAGE === "en" ? "one" : "other"}`] ?? key;
  return text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "testid") element.dataset.testid = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// A key stands beside what it does for the eye; for a screen reader it is the button's shortcut.
function cap(key) {
  return make("kbd", { "aria-hidden": "true" }, key);
}

function makeButton(text, { key, shortcut, ...attributes } = {}, ...more) {
  return make(
    "button",
    { type: "button", class: "rl-button", "aria-keyshortcuts": shortcut ?? (key?.length === 1 ? key : undefined), ...attributes },
    make("span", {}, text), ...more, key ? cap(key) : null,
  );
}

function putTexts(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const element of root.querySelectorAll("[data-placeholder]")) element.placeholder = t(element.dataset.placeholder);
  if (root.dataset.label) root.setAttribute("aria-label", t(root.dataset.label));
}

function fillProse(box, html, otherwise) {
  if (html) box.innerHTML = html;
  else box.replaceChildren(make("p", { class: "rl-no-text" }, otherwise));
}

function isTyping(target) {
  return target instanceof Element && target.closest("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]") !== null;
}

// What the browser remembers of a reader's taste. It may refuse to; nothing depends on it.
const memory = {
  get(name) {
    try { return localStorage.getItem(`rankloop.${name}`); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem(`rankloop.${name}`, value); } catch { /* private windows */ }
  },
};

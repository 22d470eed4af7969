// @ts-check
// Finds and makes elements. Everything is set as text, except HTML that the server has sanitized (`setProse`).

import { t } from "./i18n.js";

/** @typedef {string | number | boolean | null | undefined} AttributeValue */
/** @typedef {Node | string | null | undefined} Child */

/**
 * The first element that matches. Throws if there is none of that type.
 * @template {typeof Element} [Type=typeof HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {Type} [type]
 * @returns {InstanceType<Type>}
 */
export function find(root, selector, type = /** @type {any} */ (HTMLElement)) {
  const element = root.querySelector(selector);
  if (!(element instanceof type)) throw new TypeError(`${selector} is no ${type.name}`);
  return /** @type {InstanceType<Type>} */ (element);
}

/**
 * @template {typeof Element} [Type=typeof HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {Type} [type]
 * @returns {InstanceType<Type>[]}
 */
export function findAll(root, selector, type = /** @type {any} */ (HTMLElement)) {
  const ofType = [...root.querySelectorAll(selector)].filter((element) => element instanceof type);
  return /** @type {InstanceType<Type>[]} */ (ofType);
}

/**
 * @template {typeof Element} [Type=typeof HTMLElement]
 * @param {ParentNode} root
 * @param {string} name
 * @param {Type} [type]
 */
export function byTestId(root, name, type) {
  return find(root, `[data-testid="${name}"]`, type);
}

/**
 * The element that an event happened on.
 * @param {Event} event
 */
export function targetOf(event) {
  return event.target instanceof Element ? event.target : document.body;
}

/**
 * The nearest element that matches, the start included.
 * @param {Element} start
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function closest(start, selector) {
  return start.closest(selector);
}

/**
 * Whether keys are text there.
 * @param {Element} target
 */
export function isTyping(target) {
  return target.closest("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]") !== null;
}

/**
 * Makes an element. Attributes that are false, null or undefined are left out; `testid` stands for `data-testid`.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, AttributeValue>} [attributes]
 * @param {...(Child | Child[])} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name === "testid" ? "data-testid" : name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * A key's label, hidden from screen readers, which read the button's shortcut.
 * @param {string} key
 */
export function keyCap(key) {
  return make("kbd", { "aria-hidden": "true" }, key);
}

/**
 * A button with its key. `shortcut` is the key for a screen reader, if it differs.
 * @param {string} text
 * @param {{ key?: string, shortcut?: string } & Record<string, AttributeValue>} [attributes]
 */
export function makeButton(text, { key, shortcut, ...attributes } = {}) {
  const spoken = shortcut ?? (key?.length === 1 ? key : undefined);
  return make(
    "button",
    { type: "button", class: "rl-button", "aria-keyshortcuts": spoken, ...attributes },
    make("span", {}, text), key ? keyCap(key) : null,
  );
}

/**
 * Fills in the texts that a template names by their keys.
 * @param {HTMLElement} root
 */
export function putTexts(root) {
  for (const element of findAll(root, "[data-text]")) element.textContent = t(element.dataset.text ?? "");
  for (const element of findAll(root, "[data-label]")) element.setAttribute("aria-label", t(element.dataset.label ?? ""));
  for (const input of findAll(root, "[data-placeholder]", HTMLInputElement)) input.placeholder = t(input.dataset.placeholder ?? "");
  if (root.dataset.label) root.setAttribute("aria-label", t(root.dataset.label));
}

/**
 * Sets HTML that the server has sanitized, or a note if there is none.
 * @param {HTMLElement} box
 * @param {string} html
 * @param {string} otherwise
 */
export function setProse(box, html, otherwise) {
  if (html) box.innerHTML = html;
  else box.replaceChildren(make("p", { class: "rl-no-text" }, otherwise));
}

/**
 * Whether the page is in a visible tab, of the browser and of the app.
 * @param {HTMLElement} root
 */
export function isVisible(root) {
  return document.visibilityState === "visible" && root.checkVisibility();
}

/**
 * Shows a message, or hides the box if there is none.
 * @param {HTMLElement} box
 * @param {string} message
 */
export function showMessage(box, message) {
  box.hidden = !message;
  box.textContent = message;
}

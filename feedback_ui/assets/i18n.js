// @ts-check
// Texts in the reader's language. As on the server, the first language that the browser prefers decides.

import translations from "./translations.js";

const preferred = navigator.language.split("-")[0].toLowerCase();

export const LANGUAGE = preferred in translations ? preferred : "en";

/**
 * The text of a key, with `{name}` replaced by values. `count` chooses between singular and plural.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  const texts = translations[LANGUAGE];
  const number = values.count === 1 && LANGUAGE === "en" ? "one" : "other";
  const text = texts[key] ?? texts[`${key}.${number}`] ?? key;
  return text.replace(/\{(\w+)\}/g, (placeholder, name) => String(values[name] ?? placeholder));
}

/** The message tables, one a language, and how a message is looked up. Only English is there from the start. */

import { en } from "./messages.en.js";

/** @typedef {keyof typeof en | keyof typeof import("./messages.later.en.js").later} Key */

/** The tables that are there, by their two-letter codes. @type {Record<string, Partial<Record<Key, string>>>} */
const tables = { en };

/** Brings English whole: the words of the parts that are loaded later. */
export async function loadLater() {
  const { later } = await import("./messages.later.en.js");
  tables.en = { ...en, ...later };
}

/** What went wrong, by code, in languages that errors do not speak by themselves. @type {Record<string, Record<string, string>>} */
const explanations = {};

/** How the others are brought. @type {Record<string, () => Promise<{ table: Record<Key, string>, errors: Record<string, string> }>>} */
const others = {
  de: async () => {
    const { de, errors } = await import("./messages.de.js");
    return { table: de, errors };
  },
};

/** Every language that there is. */
export const LANGUAGES = [...Object.keys(tables), ...Object.keys(others)];

/**
 * Brings the words of a language; where they do not come, English stays.
 * @param {string} lang
 */
export async function loadLanguage(lang) {
  const bring = others[lang];
  if (bring && !tables[lang]) {
    try {
      const { table, errors } = await bring();
      tables[lang] = table;
      explanations[lang] = errors;
    } catch {
      // The next time may be better.
    }
  }
}

/**
 * The first of the wished languages that there is a table for, else English.
 * @param {(string | null | undefined)[]} wishes as in the attribute `lang`: `de`, `de-AT`
 * @returns {string}
 */
export function chooseLanguage(...wishes) {
  const codes = wishes.map((wish) => wish?.slice(0, 2).toLowerCase() ?? "");
  return codes.find((code) => LANGUAGES.includes(code)) ?? "en";
}

/**
 * A message with its gaps `{name}` filled; numbers are written as the language does, several with dots between.
 * @param {string} lang
 * @param {Key} key
 * @param {Record<string, string | number | (string | number)[]>} values
 * @returns {string}
 */
export function lookUp(lang, key, values) {
  const explained = key.startsWith("explained.") ? explanations[lang]?.[String(values.code)] : undefined;
  if (explained !== undefined) {
    // It says what to do, too.
    return key === "explained.what" ? explained : "";
  }
  const text = tables[lang]?.[key] ?? tables.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (gap, name) => {
    const value = values[name] ?? gap;
    const write = (/** @type {string | number} */ one) => (typeof one === "number" ? one.toLocaleString(lang) : one);
    return Array.isArray(value) ? value.map(write).join(" · ") : write(value);
  });
}

/**
 * A number with at most so many digits after the point, for a gap.
 * @param {number} value
 * @param {number} digits
 */
export function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

/**
 * Whether there is a message of that name.
 * @param {string} key
 * @returns {key is Key}
 */
export function isKey(key) {
  return Object.hasOwn(tables.en ?? {}, key);
}

/**
 * What a reload or the way back would lose, kept by the tab until it is closed: the form, and pictures. Never a photo, and no picture
 * that holds parts of one.
 */

import { settingsFrom } from "./settings.js";

/** @import { Result } from "./gallery.js" */

/** Most letters that are kept: a browser gives a page some five million. */
const MOST = 3_500_000;

/** @param {Uint8Array} bytes */
export function encode(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** @param {string} text */
export function decode(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export class Memory {
  #key;
  /** The names under which pictures are kept, the oldest first. @type {{ name: string, result: Result | null, letters: number }[]} */
  #kept = [];
  #next = 0;

  /** @param {string} key tells this studio from others of the page */
  constructor(key) {
    this.#key = `facestudio ${key}`;
  }

  /** What was noted of the form; null where nothing was, or it cannot be read. */
  get form() {
    const form = read(`${this.#key} form`);
    return typeof form === "object" && form !== null ? /** @type {Record<string, unknown>} */ (form) : null;
  }

  /** @param {Record<string, unknown>} form */
  noteForm(form) {
    write(`${this.#key} form`, JSON.stringify(form));
  }

  /**
   * The pictures of before the reload, the oldest first.
   * @returns {Result[]}
   */
  results() {
    const prefix = `${this.#key} picture `;
    const numbers = names()
      .filter((name) => name.startsWith(prefix))
      .map((name) => Number(name.slice(prefix.length)))
      .sort((a, b) => a - b);
    /** @type {Result[]} */
    const results = [];
    for (const number of numbers) {
      const name = prefix + number;
      try {
        const { png, settings, caption, likeness } = /** @type {any} */ (read(name));
        const result = {
          png: decode(png),
          settings: settingsFrom({ ...settings, seed: large(settings.seed) }),
          visit: true,
          ...(caption ? { caption } : {}),
          ...(likeness ? { likeness } : {}),
        };
        results.push(result);
        this.#kept.push({ name, result, letters: png.length });
        this.#next = number + 1;
      } catch {
        drop(name);
      }
    }
    return results;
  }

  /**
   * Notes a picture, or what has become known of it; the oldest give way.
   * @param {Result} result
   */
  note(result) {
    // What starts from a picture shows parts of it.
    if (result.kept !== undefined || (result.request?.init ?? result.request?.into)) {
      return;
    }
    const { png, settings, caption, likeness } = result;
    const text = JSON.stringify({ png: encode(png), settings, caption, likeness }, (_, value) =>
      typeof value === "bigint" ? String(value) : value,
    );
    const known = this.#kept.find((kept) => kept.result === result);
    const entry = known ?? { name: `${this.#key} picture ${this.#next++}`, result, letters: 0 };
    entry.letters = text.length;
    if (!known) {
      this.#kept.push(entry);
    }
    while (this.#kept.reduce((sum, { letters }) => sum + letters, 0) > MOST && this.#kept.length > 1) {
      this.#forget(0);
    }
    while (!write(entry.name, text) && this.#kept.length > 1) {
      this.#forget(0);
    }
  }

  /** @param {Result} result */
  forget(result) {
    const at = this.#kept.findIndex((kept) => kept.result === result);
    if (at >= 0) {
      this.#forget(at);
    }
  }

  /** @param {number} at */
  #forget(at) {
    const [gone] = this.#kept.splice(at, 1);
    if (gone) {
      drop(gone.name);
    }
  }
}

/** A seed that was too large for a number is kept as its digits. @param {unknown} seed */
function large(seed) {
  return typeof seed === "string" && /^\d+$/.test(seed) ? BigInt(seed) : seed;
}

function names() {
  try {
    return Object.keys(sessionStorage);
  } catch {
    return [];
  }
}

/** @param {string} name @returns {unknown} */
function read(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name) ?? "null");
  } catch {
    return null;
  }
}

/** @param {string} name @param {string} text @returns {boolean} whether there was room */
function write(name, text) {
  try {
    sessionStorage.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} name */
function drop(name) {
  try {
    sessionStorage.removeItem(name);
  } catch {
    // Nothing is kept where nothing may be.
  }
}

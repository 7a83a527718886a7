/**
 * Pictures and their settings in the browser's IndexedDB, only where the user switched it on. Never the photos that were chosen; but
 * a picture that was drawn over a photo shows what was held of it.
 */

import { failure } from "../engine/protocol.js";

/** @import { Settings } from "./settings.js" */

/** What was kept; its settings may have become anything. @typedef {{ id: number, png: Uint8Array, settings: unknown }} Kept */

const DATABASE = "facestudio";
const STORE = "pictures";
const SWITCH = "facestudio-history";

/** Most pictures that are kept; the oldest give way. */
const MOST = 100;

/** Whether pictures are kept. Off until it is switched on, and where the browser forbids storage. */
export function keepsHistory() {
  try {
    return localStorage.getItem(SWITCH) === "on";
  } catch {
    return false;
  }
}

/**
 * @param {boolean} on switching off deletes what was kept
 */
export async function switchHistory(on) {
  try {
    if (on) {
      localStorage.setItem(SWITCH, "on");
    } else {
      localStorage.removeItem(SWITCH);
    }
  } catch (error) {
    throw unavailable(error);
  }
  if (!on) {
    await clearHistory();
  }
}

/**
 * Keeps a picture, where history is switched on.
 * @param {Uint8Array} png
 * @param {Settings} settings
 * @returns {Promise<number | null>} its id
 */
export async function keep(png, settings) {
  if (!keepsHistory()) {
    return null;
  }
  return withStore("readwrite", async (store) => {
    const id = await done(store.add({ time: Date.now(), png, settings }));
    const ids = await done(store.getAllKeys());
    await Promise.all(ids.slice(0, Math.max(0, ids.length - MOST)).map((old) => done(store.delete(old))));
    return Number(id);
  });
}

/**
 * What was kept, the oldest first. Records that have no picture are left as they are: they may be of another release.
 * @param {(error: unknown) => void} [fail] is told of them
 * @returns {Promise<Kept[]>}
 */
export async function readHistory(fail) {
  if (!keepsHistory()) {
    return [];
  }
  const { kept, unread } = await withStore("readonly", async (store) => {
    const [keys, records] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
    /** @type {Kept[]} */
    const kept = [];
    let unread = 0;
    for (const [i, key] of keys.entries()) {
      const { png, settings } = Object(records[i]);
      if (typeof key === "number" && png instanceof Uint8Array && png.length > 0) {
        kept.push({ id: key, png, settings });
      } else {
        unread += 1;
      }
    }
    return { kept, unread };
  });
  if (unread > 0) {
    fail?.(
      failure(
        "io",
        "history-damaged",
        `kept pictures that cannot be read: ${unread}`,
        "the others are unharmed; switch the history off to delete all",
      ),
    );
  }
  return kept;
}

/** @param {number} id */
export async function dropKept(id) {
  await withStore("readwrite", (store) => done(store.delete(id)));
}

export async function clearHistory() {
  await withStore("readwrite", (store) => done(store.clear()));
}

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => Promise<T>} use
 * @returns {Promise<T>}
 */
async function withStore(mode, use) {
  try {
    const request = indexedDB.open(DATABASE, 1);
    request.addEventListener("upgradeneeded", () => {
      request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    });
    const database = await done(request);
    try {
      return await use(database.transaction(STORE, mode).objectStore(STORE));
    } finally {
      database.close();
    }
  } catch (error) {
    throw unavailable(error);
  }
}

/** @param {unknown} error */
function unavailable(error) {
  return failure(
    "io",
    "history-unavailable",
    `the history cannot be used: ${error instanceof Error ? error.message : String(error)}`,
    "free some disk space or leave private mode, or switch the history off; the picture itself is not lost",
  );
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}

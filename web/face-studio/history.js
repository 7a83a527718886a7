/** Pictures and their settings in the browser's IndexedDB, only where the user switched it on. Never photos. */

/** @import { Settings } from "./settings.js" */

/** @typedef {{ id: number, time: number, png: Uint8Array, settings: Settings }} Kept */

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
  if (on) {
    localStorage.setItem(SWITCH, "on");
  } else {
    localStorage.removeItem(SWITCH);
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

/** @returns {Promise<Kept[]>} the oldest first */
export async function readHistory() {
  return keepsHistory() ? withStore("readonly", (store) => done(store.getAll())) : [];
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
    throw {
      code: "history-unavailable",
      fault: "io",
      message: `the history cannot be used: ${error instanceof Error ? error.message : String(error)}`,
      remedy: "free some disk space or leave private mode, or switch the history off; the picture itself is not lost",
    };
  }
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

/**
 * The browser's private file system (OPFS), where model files are kept: one folder a model, named by its URL; in it every
 * file under its SHA-256, and the manifest of what was last loaded.
 *
 * That a file is there says nothing: what counts is its hash, and whoever reads one computes it.
 */

import { urlOf } from "./arguments.js";
import { failure } from "./protocol.js";

/** Folder of all models. */
const ROOT = "facestudio-models";

/** Name of the stored manifest in a model's folder. */
export const MANIFEST = "manifest.json";

/** Name of the file beside that folder which says what was measured of graphics adapters. */
const MEASURED = "facestudio-measured.json";

/** Ending of the small files that keep the entity tag of a download that is under way. */
export const TAG = ".etag";

/** @typedef {{ url: string, name: string, version: string, bytes: number }} StoredModel */

/**
 * A file that is being written, from an offset on.
 * @typedef {object} Writer
 * @property {(bytes: Uint8Array) => Promise<void>} write rejects with `QuotaExceededError` when storage is full
 * @property {() => Promise<void>} close
 */

/**
 * What is used of a FileSystemSyncAccessHandle.
 * @typedef {object} SyncReader
 * @property {(into: Uint8Array, options: { at: number }) => number} read
 * @property {() => void} close
 */

/** The stored files of one model. What else may lie there, such as folders, counts as nothing, and gives way. */
export class ModelStore {
  #folder;
  #base;

  /**
   * @param {FileSystemDirectoryHandle} folder
   * @param {string} base URL of the model folder
   */
  constructor(folder, base) {
    this.#folder = folder;
    this.#base = base;
  }

  /**
   * @param {string} base URL of the model folder
   * @param {{ create: boolean }} options
   * @returns {Promise<ModelStore | null>} null where there is no such storage, as in some private windows, or no such model
   */
  static async open(base, { create }) {
    try {
      return new ModelStore(await folderIn(await openRoot(create), encodeURIComponent(base), create), base);
    } catch {
      return null;
    }
  }

  /** Whether this browser keeps files here at all. */
  static async possible() {
    try {
      return Boolean(await navigator.storage.getDirectory());
    } catch {
      return false;
    }
  }

  /**
   * Runs `body` while no other tab writes, loads or forgets this model's files. It must not wait for the network: a server
   * that stalls would hold up every other tab.
   * @template T
   * @param {() => Promise<T>} body
   * @param {AbortSignal} [signal] ends the waiting
   * @returns {Promise<T>}
   */
  alone(body, signal) {
    return alone(this.#base, body, signal);
  }

  /**
   * Runs `body`, which fetches a file, and tells other tabs so; null, at once, where another tab fetches it.
   * @template T
   * @param {string} name
   * @param {() => Promise<T>} body
   * @returns {Promise<T | null>}
   */
  async fetching(name, body) {
    return navigator.locks
      ? navigator.locks.request(`${lockOf(this.#base)} ${name}`, { ifAvailable: true }, (lock) => (lock ? body() : null))
      : body();
  }

  /**
   * @param {string} name
   * @returns {Promise<File | null>}
   */
  async file(name) {
    try {
      return await (await this.#folder.getFileHandle(name)).getFile();
    } catch (thrown) {
      if (isNone(thrown)) {
        return null;
      }
      throw thrown;
    }
  }

  /**
   * A handle that reads a stored file into memory of one's own, until it is closed; null where another tab holds the file,
   * or the browser has no such handles.
   * @param {string} name
   * @returns {Promise<SyncReader | null>}
   */
  async reader(name) {
    try {
      const handle = /** @type {any} */ (await this.#folder.getFileHandle(name));
      // Several tabs may read at once.
      return await handle.createSyncAccessHandle({ mode: "read-only" });
    } catch {
      return null;
    }
  }

  /**
   * A handle that reads a stored file at once, or writes one. Rejects where another tab holds it, or the browser has no such handles.
   * @param {string} name
   * @param {"read-only" | "readwrite"} mode
   * @returns {Promise<any>} a FileSystemSyncAccessHandle
   */
  async handle(name, mode) {
    const file = mode === "readwrite" ? await this.#create(name) : await this.#folder.getFileHandle(name);
    return /** @type {any} */ (file).createSyncAccessHandle({ mode });
  }

  /** A small file; null where it cannot be read, as while another tab replaces it. @param {string} name */
  async text(name) {
    try {
      return (await (await this.file(name))?.text()) ?? null;
    } catch (thrown) {
      if (thrown instanceof DOMException) {
        return null;
      }
      throw thrown;
    }
  }

  /**
   * Replaces a small file.
   * @param {string} name
   * @param {string} text
   */
  async putText(name, text) {
    await this.remove(name);
    const writer = await this.writer(name, 0);
    try {
      await writer.write(new TextEncoder().encode(text));
    } finally {
      await writer.close();
    }
  }

  /**
   * Writes into a file from `offset` on.
   * @param {string} name
   * @param {number} offset
   * @returns {Promise<Writer>}
   */
  async writer(name, offset) {
    const handle = await this.#create(name);
    if ("createSyncAccessHandle" in handle) {
      return syncWriter(await /** @type {any} */ (handle).createSyncAccessHandle(), offset);
    }
    // Where there are no such handles; what is written becomes visible when it is closed.
    const stream = await /** @type {FileSystemFileHandle} */ (handle).createWritable({ keepExistingData: true });
    await stream.seek(offset);
    return {
      write: (bytes) => stream.write(/** @type {BufferSource} */ (bytes)),
      close: () => stream.close(),
    };
  }

  /** @param {string} name */
  async #create(name) {
    try {
      return await this.#folder.getFileHandle(name, { create: true });
    } catch (thrown) {
      if (!isNone(thrown)) {
        throw thrown;
      }
      await this.remove(name);
      return this.#folder.getFileHandle(name, { create: true });
    }
  }

  /** @param {string} name */
  async remove(name) {
    await this.#folder.removeEntry(name, { recursive: true }).catch(ifThere);
  }

  /**
   * Names and sizes of all files.
   * @returns {Promise<Map<string, number>>}
   */
  async sizes() {
    const sizes = new Map();
    for await (const handle of /** @type {any} */ (this.#folder).values()) {
      // Another tab may remove one meanwhile.
      sizes.set(handle.name, handle.kind === "file" ? ((await this.file(handle.name))?.size ?? 0) : 0);
    }
    return sizes;
  }
}

/**
 * @param {any} handle a FileSystemSyncAccessHandle
 * @param {number} offset
 * @returns {Writer}
 */
function syncWriter(handle, offset) {
  let at = offset;
  return {
    async write(bytes) {
      const written = handle.write(bytes, { at });
      if (written < bytes.length) {
        throw new DOMException("the file could not be extended", "QuotaExceededError");
      }
      at += written;
    },
    async close() {
      try {
        handle.flush();
      } finally {
        handle.close();
      }
    },
  };
}

/**
 * Every stored model.
 * @returns {Promise<StoredModel[]>}
 */
export async function storedModels() {
  const models = [];
  for (const { url, folder } of await folders()) {
    const store = new ModelStore(folder, url);
    try {
      const [sizes, { name, version }] = [await store.sizes(), parse(await store.text(MANIFEST))];
      const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0);
      models.push({ url, name: textOr(name), version: textOr(version), bytes });
    } catch (thrown) {
      // Another tab forgets or replaces it meanwhile.
      if (!(thrown instanceof DOMException)) {
        throw thrown;
      }
    }
  }
  return models;
}

/**
 * The folders of models; anything else that lies there is nobody's model.
 * @returns {Promise<{ url: string, folder: FileSystemDirectoryHandle }[]>}
 */
async function folders() {
  const found = [];
  try {
    for await (const folder of /** @type {any} */ (await openRoot(false)).values()) {
      const url = folder.kind === "directory" ? modelOf(folder.name) : null;
      if (url) {
        found.push({ url, folder });
      }
    }
  } catch {
    // No storage, or nothing in it.
  }
  return found;
}

/** @param {string} name of a folder */
function modelOf(name) {
  try {
    const url = decodeURIComponent(name);
    return urlOf(url) && encodeURIComponent(url) === name ? url : null;
  } catch {
    return null;
  }
}

/** @param {unknown} value */
function textOr(value) {
  return typeof value === "string" ? value : "";
}

/**
 * What was measured of graphics adapters, by their names.
 * @returns {Promise<Record<string, unknown>>}
 */
export async function measured() {
  try {
    return parse(await new ModelStore(await navigator.storage.getDirectory(), "").text(MEASURED));
  } catch {
    return {};
  }
}

/**
 * Keeps what was measured, where anything can be kept.
 * @param {Record<string, unknown>} known
 */
export async function putMeasured(known) {
  try {
    await new ModelStore(await navigator.storage.getDirectory(), "").putText(MEASURED, JSON.stringify(known));
  } catch {
    // No storage, or another tab writes: it is measured again at the next visit.
  }
}

/**
 * The object of a stored text. Without a manifest, or with half of one, its download has not finished yet.
 * @param {string | null} text
 */
function parse(text) {
  try {
    return Object(JSON.parse(text || "{}"));
  } catch {
    return {};
  }
}

/**
 * Removes one model's files, or all that is kept.
 * @param {string | undefined} base
 * @param {AbortSignal} signal
 */
export async function forgetModels(base, signal) {
  const remove = async (/** @type {string} */ url) => {
    const root = await openRoot(false);
    await root.removeEntry(encodeURIComponent(url), { recursive: true });
  };
  for (const url of base ? [base] : (await folders()).map((folder) => folder.url)) {
    await alone(url, () => remove(url).catch(ifThere), signal);
  }
  if (!base) {
    const holder = await navigator.storage?.getDirectory().catch(() => null);
    await holder?.removeEntry(MEASURED, { recursive: true }).catch(ifThere);
    await holder?.removeEntry(ROOT, { recursive: true }).catch(ifThere);
  }
}

/** @param {string} base */
function lockOf(base) {
  return `${ROOT} ${base}`;
}

/**
 * Runs `body` while no other tab does so with the same model.
 * @template T
 * @param {string} base
 * @param {() => Promise<T>} body
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
function alone(base, body, signal) {
  return navigator.locks ? navigator.locks.request(lockOf(base), signal ? { signal } : {}, body) : body();
}

/** @param {boolean} create */
async function openRoot(create) {
  return folderIn(await navigator.storage.getDirectory(), ROOT, create);
}

/**
 * A folder; a file of its name gives way to it.
 * @param {FileSystemDirectoryHandle} holder
 * @param {string} name
 * @param {boolean} create
 */
async function folderIn(holder, name, create) {
  try {
    return await holder.getDirectoryHandle(name, { create });
  } catch (thrown) {
    if (!create || !(thrown instanceof DOMException && thrown.name === "TypeMismatchError")) {
      throw thrown;
    }
    await holder.removeEntry(name);
    return holder.getDirectoryHandle(name, { create });
  }
}

/** Whether there is no such file: nothing, or a folder. @param {unknown} thrown */
function isNone(thrown) {
  return thrown instanceof DOMException && (thrown.name === "NotFoundError" || thrown.name === "TypeMismatchError");
}

/** @param {unknown} thrown */
function ifThere(thrown) {
  if (thrown instanceof DOMException && thrown.name === "NoModificationAllowedError") {
    throw failure("io", "storage-busy", "another tab uses the stored files", "close the other tabs of this page, then try again");
  }
  // Without storage (a TypeError, a SecurityError) there is nothing to remove either.
  if (thrown instanceof DOMException && !isNone(thrown) && thrown.name !== "SecurityError") {
    throw thrown;
  }
}

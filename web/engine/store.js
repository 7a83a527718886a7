/**
 * The browser's private file system (OPFS), where model files are kept: one folder a model, named by its URL; in it every
 * file under its SHA-256, and the manifest of what was last loaded.
 *
 * That a file is there says nothing: what counts is its hash, and whoever reads one computes it.
 */

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

/** The stored files of one model. */
/**
 * What is used of a FileSystemSyncAccessHandle.
 * @typedef {object} SyncReader
 * @property {(into: Uint8Array, options: { at: number }) => number} read
 * @property {() => void} close
 */

export class ModelStore {
  #folder;

  /** @param {FileSystemDirectoryHandle} folder */
  constructor(folder) {
    this.#folder = folder;
  }

  /**
   * @param {string} base URL of the model folder
   * @param {{ create: boolean }} options
   * @returns {Promise<ModelStore | null>} null where there is no such storage, as in some private windows, or no such model
   */
  static async open(base, { create }) {
    try {
      const root = await openRoot(create);
      return new ModelStore(await root.getDirectoryHandle(encodeURIComponent(base), { create }));
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
   * @param {string} name
   * @returns {Promise<File | null>}
   */
  async file(name) {
    try {
      return await (await this.#folder.getFileHandle(name)).getFile();
    } catch (thrown) {
      if (thrown instanceof DOMException && thrown.name === "NotFoundError") {
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

  /** @param {string} name */
  async text(name) {
    return (await (await this.file(name))?.text()) ?? null;
  }

  /**
   * Replaces a small file.
   * @param {string} name
   * @param {string} text
   */
  async putText(name, text) {
    const writer = await this.writer(name, 0);
    try {
      await writer.write(new TextEncoder().encode(text));
    } finally {
      await writer.close();
    }
  }

  /**
   * Writes a file from `offset` on; what lay behind it is cut off.
   * @param {string} name
   * @param {number} offset
   * @returns {Promise<Writer>}
   */
  async writer(name, offset) {
    const handle = await this.#folder.getFileHandle(name, { create: true });
    if ("createSyncAccessHandle" in handle) {
      return syncWriter(await /** @type {any} */ (handle).createSyncAccessHandle(), offset);
    }
    // Where there are no such handles; what is written becomes visible when it is closed.
    const stream = await /** @type {FileSystemFileHandle} */ (handle).createWritable({ keepExistingData: true });
    await stream.truncate(offset);
    await stream.seek(offset);
    return {
      write: (bytes) => stream.write(/** @type {BufferSource} */ (bytes)),
      close: () => stream.close(),
    };
  }

  /** @param {string} name */
  async remove(name) {
    await this.#folder.removeEntry(name).catch(ifThere);
  }

  /**
   * Names and sizes of all files.
   * @returns {Promise<Map<string, number>>}
   */
  async sizes() {
    const sizes = new Map();
    for await (const handle of /** @type {any} */ (this.#folder).values()) {
      sizes.set(handle.name, (await handle.getFile()).size);
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
  try {
    handle.truncate(offset);
  } catch (thrown) {
    // A handle left open would lock the file.
    handle.close();
    throw thrown;
  }
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
  const root = await openRoot(false).catch(() => null);
  if (root) {
    for await (const folder of /** @type {any} */ (root).values()) {
      const store = new ModelStore(folder);
      const sizes = await store.sizes();
      const { name = "", version = "" } = parse(await store.text(MANIFEST));
      const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0);
      models.push({ url: decodeURIComponent(folder.name), name, version, bytes });
    }
  }
  return models;
}

/**
 * What was measured of graphics adapters, by their names.
 * @returns {Promise<Record<string, unknown>>}
 */
export async function measured() {
  try {
    return parse(await new ModelStore(await navigator.storage.getDirectory()).text(MEASURED));
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
    await new ModelStore(await navigator.storage.getDirectory()).putText(MEASURED, JSON.stringify(known));
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
 * @param {string} [base]
 */
export async function forgetModels(base) {
  const remove = async () => {
    if (base) {
      await (await openRoot(false)).removeEntry(encodeURIComponent(base), { recursive: true });
      return;
    }
    const holder = await navigator.storage.getDirectory();
    await holder.removeEntry(MEASURED).catch(ifThere);
    await holder.removeEntry(ROOT, { recursive: true });
  };
  await remove().catch(ifThere);
}

/**
 * Runs `body` while no other tab fetches, loads or forgets models: half-written files are nobody else's.
 * @template T
 * @param {AbortSignal} signal
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
export function alone(signal, body) {
  return navigator.locks ? navigator.locks.request(ROOT, { signal }, body) : body();
}

/** @param {boolean} create */
async function openRoot(create) {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT, { create });
}

/** @param {unknown} thrown */
function ifThere(thrown) {
  // Without storage (a TypeError, a SecurityError) there is nothing to remove either.
  if (thrown instanceof DOMException && thrown.name !== "NotFoundError" && thrown.name !== "SecurityError") {
    throw thrown;
  }
}

/** Where a model file's bytes go while they arrive: into the browser's storage, or, where that is full or missing, memory. */

import { TAG } from "./store.js";

/** @import { ModelStore, Writer } from "./store.js" */

/** The bytes of one file, from its beginning. */
export class Sink {
  /** @type {ModelStore | null} */
  #store;
  #name;
  /** @type {Writer | null} */
  #writer = null;
  /** The bytes that are in memory instead. @type {Blob | null} */
  #kept = null;
  /** Those of them that no blob holds yet. @type {Uint8Array[]} */
  #parts = [];
  #size = 0;
  /** Strong entity tag of the download that these bytes are from. @type {string | null} */
  tag = null;

  /**
   * @param {ModelStore | null} store
   * @param {string} name
   */
  constructor(store, name) {
    this.#store = store;
    this.#name = name;
  }

  /**
   * What an earlier visit left.
   * @param {ModelStore | null} store
   * @param {string} name
   */
  static async open(store, name) {
    const sink = new Sink(store, name);
    const file = await store?.file(name);
    sink.#size = file?.size ?? 0;
    sink.tag = (file && (await store?.text(name + TAG))) || null;
    return sink;
  }

  get size() {
    return this.#size;
  }

  /** Whether the bytes are in memory, not in storage. */
  get inMemory() {
    return this.#store === null;
  }

  /**
   * Begins or goes on with a download.
   * @param {string | null} tag
   */
  async resume(tag) {
    if (this.#store && tag !== this.tag) {
      const name = this.#name + TAG;
      const put = tag === null ? this.#store.remove(name) : this.#store.putText(name, tag);
      // Where storage is full the tag is worth nothing: the bytes go to memory.
      await put.catch((thrown) => {
        if (!isFull(thrown)) {
          throw thrown;
        }
      });
    }
    this.tag = tag;
  }

  /** @param {Uint8Array} bytes */
  async append(bytes) {
    if (this.#store) {
      try {
        this.#writer ??= await this.#store.writer(this.#name, this.#size);
        await this.#writer.write(bytes);
        this.#size += bytes.length;
        return;
      } catch (thrown) {
        if (!isFull(thrown)) {
          throw thrown;
        }
        await this.#leaveStorage(this.#store);
      }
    }
    this.#parts.push(bytes);
    this.#size += bytes.length;
  }

  /** Takes what storage holds along into memory, so that nothing is fetched twice. @param {ModelStore} store */
  async #leaveStorage(store) {
    await this.#closeWriter();
    const file = await store.file(this.#name);
    const bytes = await file?.slice(0, this.#size).arrayBuffer();
    this.#kept = new Blob(bytes ? [bytes] : []);
    this.#store = null;
    await store.remove(this.#name);
    await store.remove(this.#name + TAG);
  }

  /** Forgets everything, to begin anew. */
  async reset() {
    await this.#closeWriter();
    await this.#store?.remove(this.#name);
    await this.resume(null);
    this.#kept = null;
    this.#parts = [];
    this.#size = 0;
  }

  /** Uses storage no more; only after {@link reset}. */
  stayInMemory() {
    this.#store = null;
  }

  /** Everything so far; nothing may be appended while it is read. */
  async blob() {
    await this.#closeWriter();
    if (this.#store) {
      return (await this.#store.file(this.#name)) ?? new Blob();
    }
    // A blob lives outside JavaScript's memory, and a browser may put it on the disk.
    this.#kept = new Blob([...(this.#kept ? [this.#kept] : []), .../** @type {BlobPart[]} */ (this.#parts)]);
    this.#parts = [];
    return this.#kept;
  }

  async #closeWriter() {
    const writer = this.#writer;
    this.#writer = null;
    await writer?.close();
  }
}

/** @param {unknown} thrown */
function isFull(thrown) {
  return thrown instanceof Error && thrown.name === "QuotaExceededError";
}

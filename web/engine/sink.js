/** Where a model file's bytes go while they arrive: into the browser's storage, or, where that is full or missing, memory. */

import { TAG } from "./store.js";

/** @import { ModelStore } from "./store.js" */

/** Bytes that are gathered before they are written: storage is held for that alone, never while the network is waited for. */
const BATCH = 4 << 20;

/** Milliseconds after which they are written in any case. */
const BATCH_TIME = 1000;

/** Storage has lost what it took before: what is left of it is in memory now, and the rest has to come again. */
export class Lost extends Error {}

/** The bytes of one file, from its beginning. */
export class Sink {
  /** Null once it is left. @type {ModelStore | null} */
  #store;
  /** Where the file lies, left or not. @type {ModelStore | null} */
  #home;
  #name;
  #signal;
  /** Bytes that storage holds; none once it is left. */
  #stored = 0;
  /** Once storage is left: the beginning, of which storage may still hold a part. */
  #kept = new Blob();
  /** What has arrived since. @type {Uint8Array[]} */
  #parts = [];
  /** Bytes in them. */
  #waiting = 0;
  #written = performance.now();
  /** Strong entity tag of the download that these bytes are from. @type {string | null} */
  tag = null;
  /** Whether storage may hold something else than what was written: another tab writes the same file, or it has run full. */
  doubtful = false;
  /** Why the bytes are in memory; null where that is not storage's doing. @type {"full" | "failed" | null} */
  why = null;

  /**
   * @param {ModelStore | null} store
   * @param {string} name
   * @param {AbortSignal} signal
   */
  constructor(store, name, signal) {
    this.#store = store;
    this.#home = store;
    this.#name = name;
    this.#signal = signal;
  }

  /**
   * What an earlier visit left in storage, or this one in memory.
   * @param {ModelStore | null} store
   * @param {string} name
   * @param {AbortSignal} signal
   * @param {Blob} [held]
   */
  static async open(store, name, signal, held = new Blob()) {
    const sink = new Sink(store, name, signal);
    let file;
    try {
      file = await store?.file(name);
    } catch (thrown) {
      ofStorage(thrown);
      sink.#store = null;
      sink.#kept = held;
      sink.why = "failed";
      return sink;
    }
    if (held.size > (file?.size ?? 0)) {
      sink.#store = null;
      sink.#kept = held;
      sink.why = store ? "full" : null;
      return sink;
    }
    sink.#stored = file?.size ?? 0;
    sink.tag = (file && (await store?.text(name + TAG))) || null;
    return sink;
  }

  get size() {
    return (this.#store ? this.#stored : this.#kept.size) + this.#waiting;
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
      const [store, name] = [this.#store, this.#name + TAG];
      // Where it cannot be kept the tag is worth nothing: the bytes will go to memory.
      await store.alone(() => (tag === null ? store.remove(name) : store.putText(name, tag))).catch(ofStorage);
    }
    this.tag = tag;
  }

  /**
   * Takes the next bytes. Rejects with {@link Lost} where storage has lost earlier ones.
   * @param {Uint8Array} bytes
   */
  async append(bytes) {
    this.#parts.push(bytes);
    this.#waiting += bytes.length;
    if (this.#waiting >= BATCH || (this.#store && performance.now() - this.#written >= BATCH_TIME)) {
      await this.flush();
    }
  }

  /** Writes what has been gathered. */
  async flush() {
    if (this.#waiting > 0 && this.#store) {
      const store = this.#store;
      try {
        await store.alone(() => this.#write(store));
        this.#stored += this.#waiting;
        this.#parts = [];
        this.#waiting = 0;
        this.#written = performance.now();
        return;
      } catch (thrown) {
        ofStorage(thrown);
        this.why = isFull(thrown) ? "full" : "failed";
      }
      await this.#leave(store);
    }
    if (this.#waiting > 0) {
      // A blob lives outside JavaScript's memory, and a browser may put it on the disk.
      this.#kept = new Blob([this.#kept, .../** @type {BlobPart[]} */ (this.#parts)]);
      this.#parts = [];
      this.#waiting = 0;
    }
  }

  /** @param {ModelStore} store */
  async #write(store) {
    const there = (await store.file(this.#name))?.size ?? 0;
    if (there < this.#stored) {
      throw new DOMException("what was stored is gone", "NotFoundError");
    }
    this.doubtful ||= there > this.#stored;
    const writer = await store.writer(this.#name, this.#stored);
    try {
      for (const part of this.#parts) {
        await writer.write(part);
      }
    } finally {
      await writer.close();
    }
    // A storage that has run full may hold less than it took.
    if (((await store.file(this.#name))?.size ?? 0) < this.#stored + this.#waiting) {
      throw new DOMException("the file is shorter than what was written", "QuotaExceededError");
    }
  }

  /**
   * Goes on in memory. What storage holds stays there, for the next visit too.
   * @param {ModelStore} store
   */
  async #leave(store) {
    this.#store = null;
    this.tag = null;
    this.doubtful = true;
    const file = await store.file(this.#name).catch(() => null);
    this.#kept = (file ?? new Blob()).slice(0, this.#stored);
    if (this.#kept.size < this.#stored) {
      this.#parts = [];
      this.#waiting = 0;
      throw new Lost();
    }
  }

  /**
   * Hands out everything that is there, from the beginning, as it can be read back: nothing of it is doubtful then.
   * @param {(bytes: Uint8Array) => void} take
   */
  async read(take) {
    await this.flush();
    const store = this.#store;
    const read = async () => {
      const blob = store ? ((await store.file(this.#name)) ?? new Blob()) : this.#kept;
      const reader = blob.stream().getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        this.#signal.throwIfAborted();
        take(part.value);
      }
      return blob.size;
    };
    try {
      const size = await (store ? store.alone(read, this.#signal) : read());
      // Another tab may have added to it.
      this.#stored = store ? size : 0;
      this.doubtful = false;
    } catch (thrown) {
      this.#signal.throwIfAborted();
      ofStorage(thrown);
      // What cannot be read is not there.
      this.#store = null;
      this.#kept = new Blob();
      this.why = "failed";
      throw new Lost();
    }
  }

  /** Forgets everything, to begin anew. */
  async reset() {
    const home = this.#home;
    await home?.alone(() => home.remove(this.#name)).catch(ofStorage);
    await this.resume(null);
    this.#stored = 0;
    this.#kept = new Blob();
    this.#parts = [];
    this.#waiting = 0;
  }

  /** Everything so far. */
  async blob() {
    await this.flush();
    return this.#store ? ((await this.#store.file(this.#name)) ?? new Blob()) : this.#kept;
  }
}

/** @param {unknown} thrown */
function isFull(thrown) {
  return thrown instanceof Error && thrown.name === "QuotaExceededError";
}

/**
 * Lets go by what storage fails with; a signal's reason is none of that, and no bug either.
 * @param {unknown} thrown
 */
function ofStorage(thrown) {
  if (!(thrown instanceof DOMException) || thrown.name === "AbortError") {
    throw thrown;
  }
}

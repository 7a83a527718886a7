/** One model on its way, for everyone who waits for it. */

import { cancelled } from "./protocol.js";

/** @import { BackendWish, Opened, PrecisionWish, Progress } from "./protocol.js" */

/** @typedef {{ model: string, backend: BackendWish, precision: PrecisionWish, lean: boolean }} Wanted */

export class Opening {
  #wanted;
  #controller = new AbortController();
  /** @type {Set<(progress: Progress) => void>} */
  #listeners = new Set();
  #waiting = 0;
  #finished = false;
  /** What it has opened. @type {Opened | null} */
  opened = null;

  /**
   * @param {Wanted} wanted
   * @param {(onProgress: (progress: Progress) => void, signal: AbortSignal) => Promise<Opened>} start
   */
  constructor(wanted, start) {
    this.#wanted = wanted;
    /** Settles when the model is open, or cannot be. */
    this.done = start((progress) => this.#listeners.forEach((listen) => listen(progress)), this.#controller.signal);
    const finish = () => {
      this.#finished = true;
    };
    this.done.then(finish, finish);
  }

  /** Whether this opens the model that is wanted, and is not given up. @param {Omit<Wanted, "lean">} wanted */
  isOf({ model, backend, precision }) {
    const wanted = this.#wanted;
    const same = wanted.model === model && wanted.backend === backend && wanted.precision === precision;
    return same && !this.#controller.signal.aborted;
  }

  /**
   * Waits for the model. Whoever aborts waits no longer; when nobody is left, opening it is cancelled.
   * @param {((progress: Progress) => void) | undefined} onProgress
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<Opened>}
   */
  async join(onProgress, signal) {
    const listen = (/** @type {Progress} */ progress) => onProgress?.(progress);
    this.#listeners.add(listen);
    this.#waiting += 1;
    /** @type {() => void} */
    let leave = () => {};
    const left = new Promise((_, reject) => {
      leave = () => reject(signal?.reason);
    });
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted) {
      leave();
    }
    try {
      return /** @type {Opened} */ (await Promise.race([this.done, left]));
    } finally {
      signal?.removeEventListener("abort", leave);
      this.#listeners.delete(listen);
      this.#waiting -= 1;
      if (this.#waiting === 0 && !this.#finished) {
        this.#controller.abort(cancelled());
      }
    }
  }
}

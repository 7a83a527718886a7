/**
 * `FaceStudio`: a model and its engine without an interface. The element is built on it, and so can a page be.
 *
 * ```js
 * import { FaceStudio } from "facestudio";
 * const studio = new FaceStudio({ model: "/models/mini/" });
 * const [picture] = await studio.generate({ people: [], prompt: "a watercolor portrait" });
 * ```
 */

import { EngineClient } from "../engine/client.js";
import { CANCELLED, FaceStudioError, toFailure } from "../engine/protocol.js";
import { TimeLeft } from "./time-left.js";

/** @import { BackendWish, Checked, GenerateRequest, Notice, Opened, Person, Picture, Portrait, Progress, Stored } from "../engine/protocol.js" */

/**
 * Progress with what a person wants to know of it.
 * @typedef {Progress & { bytes?: number, total_bytes?: number, seconds_left?: number }} TimedProgress
 */

/**
 * @typedef {object} FaceStudioOptions
 * @property {string | URL} [model] the model folder; default `models/mini/` beside the package's folders
 * @property {BackendWish} [backend]
 */

/**
 * @typedef {object} TaskOptions
 * @property {AbortSignal} [signal]
 * @property {(progress: TimedProgress) => void} [onProgress]
 */

/** The model folder that is meant where none is named. */
export const DEFAULT_MODEL = new URL("../models/mini/", import.meta.url).href;

export class FaceStudio {
  /** Studios on one page that want one model share an engine, and with it the model's memory. */
  #engine;
  /** @type {Promise<Opened> | null} */
  #opening = null;
  /** What the open model is; null while there is none. @type {Opened | null} */
  opened = null;
  /** @type {AbortController | null} */
  #task = null;
  #closed = false;
  #model;
  #backend;

  /** @param {FaceStudioOptions} [options] */
  constructor({ model = DEFAULT_MODEL, backend = "auto" } = {}) {
    this.#model = new URL(model, document.baseURI).href;
    this.#backend = backend;
    this.#engine = EngineClient.shared({ model: this.#model, backend });
  }

  /** The model folder's URL. */
  get model() {
    return this.#model;
  }

  /**
   * What did not go as it should though the model is open, as when its files could not be kept.
   * @returns {Notice[]}
   */
  get notices() {
    return this.opened?.notices ?? [];
  }

  /** Whether a model is open or being opened. */
  get loading() {
    return this.#opening !== null;
  }

  /** Whether a picture is being made. */
  get busy() {
    return this.#task !== null;
  }

  /**
   * Opens the model where it is not open: fetches it, or reads it from the browser's storage.
   * @param {TaskOptions} [options]
   * @returns {Promise<Opened>}
   */
  load({ onProgress } = {}) {
    // The engine knows what is open: a crash may have closed it.
    this.#opening = this.#open(onProgress);
    return this.#opening;
  }

  /**
   * Makes the pictures of a request, opening the model first where it is not. The latest request wins: one that is
   * under way is cancelled. Aborting `signal` cancels within one step; the promise rejects with code `cancelled`.
   * A function in the request's place is called once the model is open, and learns what it can do.
   * @param {GenerateRequest | ((opened: Opened) => GenerateRequest)} request
   * @param {TaskOptions} [options]
   * @returns {Promise<Picture[]>}
   */
  async generate(request, { signal, onProgress } = {}) {
    this.#task?.abort();
    const task = new AbortController();
    this.#task = task;
    const abort = () => task.abort();
    signal?.addEventListener("abort", abort, { once: true });
    /** Who was cancelled hears no more, though opening goes on. @param {TimedProgress} progress */
    const report = (progress) => {
      if (!task.signal.aborted) {
        onProgress?.(progress);
      }
    };
    try {
      signal?.throwIfAborted();
      // Opening goes on: the next picture will want the model too.
      const opened = await unless(task.signal, this.load({ onProgress: report }));
      const asked = typeof request === "function" ? request(opened) : request;
      return await this.#engine.generate(asked, {
        signal: task.signal,
        onProgress: timed(asked.count ?? 1, report),
      });
    } catch (error) {
      if (task.signal.aborted || signal?.aborted) {
        throw new FaceStudioError(CANCELLED);
      }
      if (toFailure(error).fault === "internal") {
        // The worker may be gone, and the model with it.
        this.#lost();
      }
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
      if (this.#task === task) {
        this.#task = null;
      }
    }
  }

  /** Stops the pictures that are being made. */
  cancel() {
    this.#task?.abort();
  }

  /** Frees the model and its memory; the next picture opens it again. */
  unload() {
    this.#task?.abort();
    this.#lost();
    void this.#engine.unload();
  }

  /** Ends the studio: its engine too, unless others share it. */
  close() {
    this.#task?.abort();
    this.#lost();
    if (!this.#closed) {
      this.#closed = true;
      this.#engine.release();
    }
  }

  /**
   * What opening the model would mean: what would run, how much would be fetched, what stands in the way.
   * @returns {Promise<Checked>}
   */
  async check() {
    this.#refuseIfClosed();
    return this.#engine.check({ model: this.#model, backend: this.#backend });
  }

  /**
   * The faces of a picture, the largest first; opens the model.
   * @param {Uint8Array} image
   * @param {TaskOptions} [options]
   */
  async faces(image, options) {
    await this.load(options);
    return this.#engine.faces(image);
  }

  /**
   * How alike the face in a picture and a person are: the cosine of the model's identity embeddings, -1 to 1.
   * @param {Uint8Array} picture
   * @param {Person} person
   */
  async similarity(picture, person) {
    await this.load();
    return this.#engine.similarity(picture, person);
  }

  /**
   * Decodes a picture to learn its size, or why it is none.
   * @param {Uint8Array} image
   */
  inspect(image) {
    return this.#engine.inspect(image);
  }

  /**
   * Draws a made-up person as a PNG.
   * @param {{ seed: number, style: string, size: number }} sample
   */
  render(sample) {
    return this.#engine.render(sample);
  }

  /**
   * A random made-up face; the same seed gives the same one.
   * @param {number} seed
   */
  randomFace(seed) {
    return this.#engine.randomFace(seed);
  }

  /**
   * Draws a made-up face as a PNG.
   * @param {Portrait} portrait
   * @param {number} size in pixels
   */
  drawFace(portrait, size) {
    return this.#engine.drawFace(portrait, size);
  }

  /** The hair colours of made-up faces. */
  hairColors() {
    return this.#engine.hairColors();
  }

  /**
   * The models that the browser's storage holds.
   * @returns {Promise<Stored>}
   */
  stored() {
    return this.#engine.stored();
  }

  /** Removes the stored model files. */
  forget() {
    return this.#engine.forget();
  }

  /** @param {((progress: TimedProgress) => void) | undefined} onProgress */
  async #open(onProgress) {
    try {
      this.#refuseIfClosed();
      const report = onProgress && timed(1, onProgress);
      this.opened = await this.#engine.open({ model: this.#model, backend: this.#backend, onProgress: report });
      return this.opened;
    } catch (error) {
      this.#lost();
      throw error;
    }
  }

  /** A closed studio would start a worker that nobody ends. */
  #refuseIfClosed() {
    if (this.#closed) {
      throw new FaceStudioError({ ...CANCELLED, message: "the studio was closed" });
    }
  }

  /** There is no model any more. */
  #lost() {
    this.#opening = null;
    this.opened = null;
  }
}

/**
 * What a promise brings, or a rejection as soon as the signal is aborted.
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function unless(signal, promise) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

/**
 * @param {number} pictures
 * @param {(progress: TimedProgress) => void} report
 * @returns {(progress: Progress) => void}
 */
function timed(pictures, report) {
  const clock = new TimeLeft(pictures);
  return (progress) => {
    const bytes = progress.phase === "fetch" ? { bytes: progress.step, total_bytes: progress.steps } : {};
    const seconds = clock.update(progress);
    report({ ...progress, ...bytes, ...(seconds === undefined ? {} : { seconds_left: seconds }) });
  };
}

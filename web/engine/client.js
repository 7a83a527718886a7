/** The page's side of the engine: promises, progress and cancellation over the worker's messages. */

import { FaceStudioError, PROTOCOL, RELEASE, mismatch } from "./protocol.js";

/** @import { Answers, Ask, BackendWish, Failure, GenerateRequest, Person, Portrait, Progress, Reply } from "./protocol.js" */

/** Milliseconds until a worker that does not answer `hello` is given up. */
const HELLO_TIMEOUT = 30_000;

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {((progress: Progress) => void) | undefined} onProgress
 */

/** An engine in a worker of its own. After a crash the next question starts a fresh one. */
export class EngineClient {
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Promise<unknown> | null} */
  #greeted = null;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #nextId = 1;
  #url;

  /** @param {URL} [url] the worker's script; must be of the page's own origin */
  constructor(url = new URL("./worker.js", import.meta.url)) {
    this.#url = url;
  }

  /**
   * Opens a model folder: fetches it, or reads it from the browser's storage, and loads it.
   * @param {{ model: string | URL, backend?: BackendWish, onProgress?: (progress: Progress) => void }} options
   */
  open({ model, backend = "auto", onProgress }) {
    const base = new URL(model, document.baseURI).href;
    return this.#ask({ type: "open", model: base.endsWith("/") ? base : `${base}/`, backend }, onProgress);
  }

  /**
   * Makes the pictures of a request. Aborting `signal` cancels within one step and rejects with code `cancelled`.
   * @param {GenerateRequest} request
   * @param {{ onProgress?: (progress: Progress) => void, signal?: AbortSignal }} [options]
   */
  generate(request, { onProgress, signal } = {}) {
    return this.#ask({ type: "generate", request }, onProgress, signal);
  }

  /**
   * Decodes a picture to learn its size, or why it is none.
   * @param {Uint8Array} image
   */
  inspect(image) {
    return this.#ask({ type: "inspect", image });
  }

  /**
   * Draws a made-up person as a PNG; the same numbers always give the same picture.
   * @param {{ seed: number, style: string, size: number }} sample
   */
  render({ seed, style, size }) {
    return this.#ask({ type: "render", seed, style, size });
  }

  /**
   * The faces of a picture, the largest first. Needs an open model, whose detector looks for them.
   * @param {Uint8Array} image
   */
  faces(image) {
    return this.#ask({ type: "faces", image });
  }

  /**
   * How alike the face in a picture and a person are: the cosine of the open model's identity embeddings, -1 to 1.
   * @param {Uint8Array} picture
   * @param {Person} person
   */
  similarity(picture, person) {
    return this.#ask({ type: "similarity", picture, person });
  }

  /**
   * A random made-up face for the face maker; the same seed gives the same one.
   * @param {number} seed
   */
  randomFace(seed) {
    return this.#ask({ type: "random_face", seed });
  }

  /**
   * Draws a made-up face as a PNG.
   * @param {Portrait} portrait
   * @param {number} size in pixels, 16 to 512
   */
  drawFace(portrait, size) {
    return this.#ask({ type: "draw_face", portrait, size });
  }

  /** The hair colours of the face maker. */
  hairColors() {
    return this.#ask({ type: "hair_colors" });
  }

  /** Removes the stored model files. */
  forget() {
    return this.#ask({ type: "forget" });
  }

  /** Ends the worker; pending questions are rejected. */
  close() {
    this.#stop({ code: "cancelled", fault: "cancelled", message: "the engine was closed", remedy: "" });
  }

  /**
   * @template {Ask["type"]} Type
   * @param {Extract<Ask, { type: Type }>} ask
   * @param {(progress: Progress) => void} [onProgress]
   * @param {AbortSignal} [signal]
   * @returns {Promise<Answers[Type]>}
   */
  async #ask(ask, onProgress, signal) {
    await this.#greet();
    if (signal?.aborted) {
      throw new FaceStudioError({ code: "cancelled", fault: "cancelled", message: "cancelled", remedy: "" });
    }
    const target = this.#nextId;
    const cancel = () => void this.#send({ type: "cancel", target }).catch(() => {});
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return await this.#send(ask, onProgress);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /**
   * @param {Ask} ask
   * @param {(progress: Progress) => void} [onProgress]
   * @returns {Promise<any>}
   */
  #send(ask, onProgress) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#worker?.postMessage({ ...ask, id });
    });
  }

  /** Starts the worker, and speaks to it only once it is known to be of this release. */
  #greet() {
    this.#greeted ??= (async () => {
      const worker = new Worker(this.#url, { type: "module", name: "facestudio" });
      this.#worker = worker;
      worker.addEventListener("message", ({ data }) => this.#receive(data));
      worker.addEventListener("error", (event) => {
        const message = event.message || "the worker's script cannot be loaded";
        this.#stop({ code: "worker-failed", fault: "internal", message, remedy: "reload the page" });
      });
      const timer = setTimeout(() => {
        this.#stop({ code: "worker-silent", fault: "internal", message: "the worker does not answer", remedy: "reload the page" });
      }, HELLO_TIMEOUT);
      try {
        const ours = { protocol: PROTOCOL, release: RELEASE };
        const failure = mismatch(ours, await this.#send({ type: "hello", ...ours }));
        if (failure) {
          throw new FaceStudioError(failure);
        }
      } catch (error) {
        this.close();
        throw error;
      } finally {
        clearTimeout(timer);
      }
    })();
    return this.#greeted;
  }

  /** @param {Reply} reply */
  #receive(reply) {
    if (reply.type === "crash") {
      this.#stop(reply.error);
      return;
    }
    const pending = this.#pending.get(reply.id);
    if (!pending) {
      return;
    }
    if (reply.type === "progress") {
      pending.onProgress?.(reply.progress);
      return;
    }
    this.#pending.delete(reply.id);
    if (reply.type === "result") {
      pending.resolve(reply.value);
    } else {
      pending.reject(new FaceStudioError(reply.error));
    }
  }

  /** @param {Failure} failure */
  #stop(failure) {
    this.#worker?.terminate();
    this.#worker = null;
    this.#greeted = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    pending.forEach(({ reject }) => reject(new FaceStudioError(failure)));
  }
}

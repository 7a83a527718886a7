/** The page's side of the engine: promises, progress and cancellation over the worker's messages. */

import { backendOf, bytesOf, countOf, folder, optionsOf, precisionOf, requestOf, textOf } from "./arguments.js";
import { unless } from "./network.js";
import { Opening } from "./opening.js";
import { FaceStudioError, PROTOCOL, RELEASE, cancelled, failure, mismatch } from "./protocol.js";

/** @import { Answers, Ask, BackendWish, GenerateRequest, Opened, Person, Portrait, PrecisionWish, Progress, Reply, Words } from "./protocol.js" */

/** Milliseconds until a worker that does not answer `hello` is given up. */
const HELLO_TIMEOUT = 30_000;

/**
 * A channel that threads can be heard on; null where there can be none, so that the worker starts none either.
 * @param {string} name
 */
function openChannel(name) {
  try {
    return globalThis.crossOriginIsolated ? new BroadcastChannel(name) : null;
  } catch {
    return null;
  }
}

/** The worker's script. */
const WORKER = new URL("./worker.js", import.meta.url);

/** Engines that several parts of a page use, by model and backend. @type {Map<string, { client: EngineClient, users: number }>} */
const shared = new Map();

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {((progress: Progress) => void) | undefined} onProgress
 */

/**
 * An engine in a worker of its own.
 *
 * When the worker ends (a crash, a lost device, a full memory), what was asked is rejected with the reason; the next
 * question starts a fresh worker, and the next picture opens the model again by itself, from the browser's storage.
 */
export class EngineClient {
  /** @type {Worker | null} */
  #worker = null;
  /** @type {BroadcastChannel | null} */
  #alarm = null;
  /** @type {Promise<unknown> | null} */
  #greeted = null;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #nextId = 1;
  #url;
  /** The model that is open in the worker, or on its way there. @type {Opening | null} */
  #opening = null;
  /** The last model that was open: what the next picture is made with. @type {import("./opening.js").Wanted | null} */
  #last = null;
  /** Cancels the newest picture. @type {AbortController | null} */
  #newest = null;
  /** Files that storage has no room for: a worker that ends does not take them along. @type {Map<string, Blob>} */
  #held = new Map();
  /** The model that they are of. @type {string | null} */
  #holder = null;

  /** @param {URL} [url] the worker's script; must be of the page's own origin */
  constructor(url = WORKER) {
    this.#url = url;
  }

  /**
   * The engine that all who want a model on a backend share: one worker, which holds that model. Each calls
   * {@link release} when done.
   * @param {{ model: string | URL, backend?: BackendWish }} wanted
   */
  static shared(wanted) {
    const { model, backend = "auto" } = optionsOf("shared", wanted);
    const key = `${backendOf(backend)} ${folder(model)}`;
    const entry = shared.get(key) ?? { client: new EngineClient(), users: 0 };
    entry.users += 1;
    shared.set(key, entry);
    return entry.client;
  }

  /** Ends this use of the engine: closes it, unless others share it. */
  release() {
    for (const [key, entry] of shared) {
      if (entry.client === this) {
        entry.users -= 1;
        if (entry.users > 0) {
          return;
        }
        shared.delete(key);
      }
    }
    this.close();
  }

  /** What the open model is; null while there is none. */
  get opened() {
    return this.#opening?.opened ?? null;
  }

  /**
   * What opening a model would mean: what would run, how much would be fetched, and what stands in the way. Reads
   * nothing but the model's manifest.
   * @param {{ model: string | URL, backend?: BackendWish, signal?: AbortSignal }} options
   */
  async check(options) {
    const { model, backend = "auto", signal } = optionsOf("check", options);
    return this.#ask({ type: "check", model: folder(model), backend: backendOf(backend) }, undefined, signal);
  }

  /**
   * Opens a model folder: fetches it, or reads it from the browser's storage, and loads it. Whoever opens what is open
   * already, or on its way, gets the same answer.
   *
   * `lean` takes less memory: the encoders of a model of any size are let go of while a picture is drawn, and read again one by
   * one when other words or styles are asked for. Without it that is done with large models only.
   *
   * `precision` is what the denoiser computes in: by itself f16 where WebGPU has `shader-f16`, which takes less memory and time,
   * and f32 elsewhere.
   * @param {{ model: string | URL, backend?: BackendWish, precision?: PrecisionWish, lean?: boolean,
   *   onProgress?: (progress: Progress) => void, signal?: AbortSignal }} options
   */
  async open(options) {
    const { model, backend = "auto", precision = "auto", lean = false, onProgress, signal } = optionsOf("open", options);
    const wanted = { model: folder(model), backend: backendOf(backend), precision: precisionOf(precision), lean };
    if (!this.#opening?.isOf(wanted)) {
      if (wanted.model !== this.#holder) {
        this.#held.clear();
      }
      this.#holder = wanted.model;
      const opening = new Opening(wanted, (progress, cancelled) => {
        // Without this promise the browser may drop the files when space is short; it may also say no.
        void navigator.storage?.persist?.().catch(() => false);
        return this.#ask({ type: "open", ...wanted, held: this.#held }, progress, cancelled);
      });
      this.#opening = opening;
      opening.done.then(
        (opened) => {
          opening.opened = opened;
          this.#last = wanted;
        },
        () => {
          if (this.#opening === opening) {
            this.#opening = null;
          }
        },
      );
    }
    return this.#opening.join(onProgress, signal);
  }

  /**
   * Makes the pictures of a request with the model that is open, or was. Aborting `signal` cancels within one step and rejects with
   * code `cancelled`; so does asking for another picture, since the latest wins: the model is opened for it all the same.
   *
   * Where `model` is given, it is opened first. A function in the request's place is called then, and learns what the model can do.
   * @param {GenerateRequest | ((opened: Opened) => GenerateRequest)} request
   * @param {{ model?: string | URL, backend?: BackendWish, onProgress?: (progress: Progress) => void, signal?: AbortSignal }} [options]
   * @returns {Promise<Answers["generate"]>}
   */
  async generate(request, options) {
    const { model, backend, onProgress, signal } = optionsOf("generate", options);
    if (typeof request !== "function") {
      requestOf(request);
    }
    this.#newest?.abort();
    const mine = new AbortController();
    this.#newest = mine;
    const linked = link(signal, mine.signal);
    /** Who was cancelled hears no more, though opening may go on for others. @param {Progress} progress */
    const report = (progress) => {
      if (!linked.signal.aborted) {
        onProgress?.(progress);
      }
    };
    const task = { signal: linked.signal, onProgress: report };
    try {
      if (model !== undefined || (!this.#opening && this.#last)) {
        await this.open({ .../** @type {import("./opening.js").Wanted} */ (model === undefined ? this.#last : { model, backend }), ...task });
      }
      const asked = typeof request === "function" ? requestOf(request(/** @type {Opened} */ (this.opened))) : request;
      return await this.#ask({ type: "generate", request: asked }, report, linked.signal);
    } catch (thrown) {
      throw linked.signal.aborted ? cancelled() : thrown;
    } finally {
      linked.free();
      if (this.#newest === mine) {
        this.#newest = null;
      }
    }
  }

  /**
   * Decodes a picture to learn its size, or why it is none.
   * @param {Uint8Array} image
   */
  async inspect(image) {
    return this.#ask({ type: "inspect", image: bytesOf("the picture", image) });
  }

  /**
   * Draws a made-up person as a PNG; the same numbers always give the same picture.
   * @param {{ seed: number, style: string, size: number }} sample
   */
  async render(sample) {
    const { seed, style, size } = optionsOf("render", sample);
    return this.#ask({ type: "render", seed: countOf("the seed", seed), style: textOf("the style", style), size: countOf("the size", size) });
  }

  /**
   * The faces of a picture, the largest first. Needs an open model, whose detector looks for them.
   * @param {Uint8Array} image
   * @param {{ signal?: AbortSignal }} [options]
   */
  async faces(image, options) {
    const { signal } = optionsOf("faces", options);
    return this.#ask({ type: "faces", image: bytesOf("the picture", image) }, undefined, signal);
  }

  /**
   * The request that makes a picture again: of its PNG, and of the pictures that it was made from, in any order. Needs the model
   * that made it. `words` are the prompts, where the PNG leaves them out.
   * @param {Uint8Array} png
   * @param {Uint8Array[]} pictures
   * @param {Words} [words]
   */
  async requestFor(png, pictures, words) {
    return this.#ask({ type: "request", png: bytesOf("the picture", png), pictures, words: words ?? null });
  }

  /**
   * How alike the face in a picture and a person are: the cosine of the open model's identity embeddings, -1 to 1.
   * @param {Uint8Array} picture
   * @param {Person} person
   * @param {{ signal?: AbortSignal }} [options]
   */
  async similarity(picture, person, options) {
    const { signal } = optionsOf("similarity", options);
    return this.#ask({ type: "similarity", picture: bytesOf("the picture", picture), person }, undefined, signal);
  }

  /**
   * A random made-up face for the face maker; the same seed gives the same one.
   * @param {number} seed
   */
  async randomFace(seed) {
    return this.#ask({ type: "random_face", seed: countOf("the seed", seed) });
  }

  /**
   * Draws a made-up face as a PNG.
   * @param {Portrait} portrait
   * @param {number} size in pixels, 16 to 512
   */
  async drawFace(portrait, size) {
    return this.#ask({ type: "draw_face", portrait, size: countOf("the size", size) });
  }

  /** The hair colours of the face maker. */
  hairColors() {
    return this.#ask({ type: "hair_colors" });
  }

  /** The models that the browser's storage holds. */
  stored() {
    return this.#ask({ type: "stored" });
  }

  /**
   * Removes the stored files of one model, or of all. A model that is open stays open; a large one, whose encoders are read
   * again for each picture, is fetched again when they are missing.
   * @param {string | URL} [model] the model folder
   */
  async forget(model) {
    const base = model === undefined ? null : folder(model);
    this.#held.clear();
    return this.#ask({ type: "forget", model: base });
  }

  /**
   * Gives the open model's memory back, and forgets which model it was. The worker ends with it, since wasm's memory
   * never shrinks; the next question starts another. A picture that is being made is cancelled.
   */
  async unload() {
    this.#last = null;
    this.#stop(cancelled());
  }

  /** Ends the worker; pending questions are rejected. */
  close() {
    this.#last = null;
    this.#held.clear();
    this.#stop(cancelled("the engine was closed"));
  }

  /**
   * @template {Ask["type"]} Type
   * @param {Extract<Ask, { type: Type }>} ask
   * @param {(progress: Progress) => void} [onProgress]
   * @param {AbortSignal} [signal]
   * @returns {Promise<Answers[Type]>}
   */
  async #ask(ask, onProgress, signal) {
    const leaving = signal ?? undefined;
    try {
      await unless(leaving, this.#greet());
      const target = this.#nextId;
      const cancel = () => void this.#send({ type: "cancel", target }).catch(() => {});
      leaving?.addEventListener("abort", cancel, { once: true });
      try {
        return await unless(leaving, this.#send(ask, onProgress ?? undefined));
      } finally {
        leaving?.removeEventListener("abort", cancel);
        this.#pending.delete(target);
      }
    } catch (thrown) {
      // Whoever cancels waits no longer: neither for the network nor for a worker that computes.
      throw leaving?.aborted ? cancelled() : thrown;
    }
  }

  /**
   * @param {Ask} ask
   * @param {(progress: Progress) => void} [onProgress]
   * @returns {Promise<any>}
   */
  #send(ask, onProgress) {
    const worker = this.#worker;
    if (!worker) {
      // It was ended between the question and its turn.
      return Promise.reject(cancelled());
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      try {
        worker.postMessage({ ...ask, id });
        this.#pending.set(id, { resolve, reject, onProgress });
      } catch (thrown) {
        // A function, a symbol, bytes that were handed over to someone else: such things cannot reach the worker.
        const why = thrown instanceof Error ? thrown.message : String(thrown);
        reject(failure("input", "argument-type", `this cannot be handed over: ${why}`, "use plain objects, texts, numbers and bytes"));
      }
    });
  }

  /** Starts the worker, and speaks to it only once it is known to be of this release. */
  #greet() {
    const greeting = async () => {
      // A thread of the worker that traps calls by this name: the worker itself waits for it, and cannot.
      const name = `facestudio-${Math.random()}`;
      const worker = startWorker(this.#url, name);
      this.#worker = worker;
      const alarm = openChannel(name);
      this.#alarm = alarm;
      // What a worker that was replaced had still to say concerns nobody.
      const current = () => this.#worker === worker;
      worker.addEventListener("message", ({ data }) => current() && this.#receive(data));
      alarm?.addEventListener("message", ({ data }) => current() && this.#stop(new FaceStudioError(data)));
      worker.addEventListener("error", (event) => {
        if (!current()) {
          return;
        }
        const message = event.message || "the worker's script cannot be loaded";
        this.#stop(failure("internal", "worker-failed", message, "reload the page"));
      });
      const timer = setTimeout(() => {
        const message = `the engine's worker does not answer: its scripts have not come within ${HELLO_TIMEOUT / 1000} s`;
        this.#stop(failure("internal", "worker-silent", message, "check the connection, then try again"));
      }, HELLO_TIMEOUT);
      try {
        const ours = { protocol: PROTOCOL, release: RELEASE };
        const differs = mismatch(ours, await this.#send({ type: "hello", ...ours }));
        if (differs) {
          throw differs;
        }
      } catch (error) {
        if (this.#worker === worker) {
          this.#stop(cancelled());
        }
        throw error;
      } finally {
        clearTimeout(timer);
      }
    };
    if (!this.#greeted) {
      const greeted = greeting();
      this.#greeted = greeted;
      // What could not even be started is tried anew.
      greeted.catch(() => {
        if (this.#greeted === greeted) {
          this.#greeted = null;
        }
      });
    }
    return this.#greeted;
  }

  /** @param {Reply} reply */
  #receive(reply) {
    if (reply.type === "crash") {
      this.#stop(new FaceStudioError(reply.error, reply.stack));
      return;
    }
    if (reply.type === "held") {
      this.#held.set(reply.sha256, reply.bytes);
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
      pending.reject(new FaceStudioError(reply.error, reply.stack));
    }
  }

  /** @param {FaceStudioError} error what everything that was asked ends with */
  #stop(error) {
    this.#worker?.terminate();
    this.#worker = null;
    this.#alarm?.close();
    this.#alarm = null;
    this.#greeted = null;
    this.#opening = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    pending.forEach(({ reject }) => reject(error));
  }
}

/**
 * @param {URL} url
 * @param {string} name
 */
function startWorker(url, name) {
  try {
    return new Worker(url, { type: "module", name });
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw failure("internal", "worker-failed", `the engine's worker cannot be started: ${why}`, "serve the package from the page's own origin, and allow workers in its policy");
  }
}

/**
 * A signal that is aborted when one of others is, until it is freed.
 * @param {(AbortSignal | null | undefined)[]} signals
 */
export function link(...signals) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  for (const signal of signals) {
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) {
      abort();
    }
  }
  const free = () => signals.forEach((signal) => signal?.removeEventListener("abort", abort));
  return { signal: controller.signal, free };
}

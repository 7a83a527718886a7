/** The page's side of the engine: promises, progress and cancellation over the worker's messages. */

import { backendOf, folder, optionsOf, precisionOf, questionOf, requestOf, withBytes } from "./arguments.js";
import { unless } from "./network.js";
import { Opening } from "./opening.js";
import { scriptOf, spawn } from "./place.js";
import { FaceStudioError, PROTOCOL, RELEASE, cancelled, failure, mismatch } from "./protocol.js";

/** @import { Answers, Ask, BackendWish, Bytes, GenerateRequest, Opened, Person, Picture, Portrait, PrecisionWish, Progress, Question, Reply, Words } from "./protocol.js" */

export { defaultModel, setBase } from "./place.js";

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

/** Engines that several parts of a page use, by model and backend. @type {Map<string, { client: EngineClient, users: number }>} */
const shared = new Map();

/** What {@link EngineClient.open} and {@link EngineClient.generate} may be given. */
const OPEN = ["model", "backend", "precision", "lean", "onProgress", "signal"];
const GENERATE = ["model", "backend", "onProgress", "onPicture", "signal"];

/** The largest seed, and the most pictures that are asked for one by one: more the engine refuses. */
const MOST_SEED = 2n ** 64n - 1n;
const MOST_AT_ONCE = 1000;

const CLOSED = "the engine was closed";

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
  /** @type {URL | null} */
  #url;
  #closed = false;
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

  /** @param {URL} [url] the worker's script, where it is not the package's own */
  constructor(url) {
    this.#url = url ?? null;
  }

  /**
   * The engine that all who want a model on a backend share: one worker, which holds that model. Each calls
   * {@link release} when done.
   * @param {{ model: string | URL, backend?: BackendWish }} wanted
   */
  static shared(wanted) {
    const { model, backend = "auto" } = optionsOf("shared", wanted, ["model", "backend"]);
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
   * Asks one thing. What each question is, and what it is answered with, is typed in protocol.js; the methods below are such
   * questions. Which model is open and which picture is the latest {@link open} and {@link generate} decide.
   * @template {Question["type"]} Type
   * @param {Extract<Question, { type: Type }>} question
   * @param {{ onProgress?: (progress: Progress) => void, signal?: AbortSignal }} [options]
   * @returns {Promise<Answers[Type]>}
   */
  async ask(question, options) {
    const { onProgress, signal } = optionsOf("ask", options, ["onProgress", "signal"]);
    const asked = questionOf(question);
    if (asked.type === "forget") {
      this.#held.clear();
    }
    return this.#ask(await withBytes(asked), onProgress, signal);
  }

  /**
   * What opening a model would mean: what would run, how much would be fetched, and what stands in the way. Reads
   * nothing but the model's manifest.
   * @param {{ model: string | URL, backend?: BackendWish, signal?: AbortSignal }} options
   */
  async check(options) {
    const { model, backend = "auto", signal } = optionsOf("check", options, ["model", "backend", "signal"]);
    return this.ask({ type: "check", model: folder(model), backend }, { signal });
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
    const { model, backend = "auto", precision = "auto", lean = false, onProgress, signal } = optionsOf("open", options, OPEN);
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
   * Makes the pictures of a request with the model that is open, or was: one after the other, each of which `onPicture` is called
   * with as soon as it is there. Aborting `signal` cancels within one step and rejects with its reason; asking for another picture
   * rejects with code `cancelled`, since the latest wins: the model is opened for it all the same. Without a seed there is a random one.
   *
   * Where `model` is given, it is opened first. A function in the request's place is called then, and learns what the model can do.
   * @param {GenerateRequest | ((opened: Opened) => GenerateRequest)} request
   * @param {{ model?: string | URL, backend?: BackendWish, onProgress?: (progress: Progress) => void,
   *   onPicture?: (picture: Picture, index: number) => void, signal?: AbortSignal }} [options]
   * @returns {Promise<Answers["generate"]>}
   */
  async generate(request, options) {
    const { model, backend, onProgress, onPicture, signal } = optionsOf("generate", options, GENERATE);
    if (typeof request !== "function") {
      requestOf(request);
    }
    this.#newest?.abort(cancelled());
    const mine = new AbortController();
    this.#newest = mine;
    const linked = link(signal, mine.signal);
    /** Who was cancelled hears no more, though opening may go on for others. @param {Progress} progress @param {number} [index] */
    const report = (progress, index) => {
      if (!linked.signal.aborted) {
        onProgress?.(index === undefined ? progress : { ...progress, picture: index });
      }
    };
    const task = { signal: linked.signal, onProgress: (/** @type {Progress} */ progress) => report(progress) };
    try {
      if (model !== undefined || (!this.#opening && this.#last)) {
        await this.open({
          .../** @type {import("./opening.js").Wanted} */ (model === undefined ? this.#last : { model, backend }),
          ...task,
        });
      }
      const asked = typeof request === "function" ? requestOf(request(/** @type {Opened} */ (this.opened))) : request;
      /** @type {Picture[]} */
      const pictures = [];
      for (const [index, one] of onePicture(await withBytes(asked)).entries()) {
        const made = await this.#ask({ type: "generate", request: one }, (progress) => report(progress, index), linked.signal);
        made.forEach((picture) => onPicture?.(picture, index));
        pictures.push(...made);
      }
      return pictures;
    } catch (thrown) {
      throw linked.signal.aborted ? linked.signal.reason : thrown;
    } finally {
      linked.free();
      if (this.#newest === mine) {
        this.#newest = null;
      }
    }
  }

  /**
   * Decodes a picture to learn its size, or why it is none.
   * @param {Bytes} image
   */
  inspect(image) {
    return this.ask({ type: "inspect", image });
  }

  /**
   * Draws a made-up person as a PNG; the same numbers always give the same picture.
   * @param {{ seed: number, style: string, size: number }} sample
   * @param {{ onProgress?: (progress: Progress) => void, signal?: AbortSignal }} [options]
   */
  render(sample, options) {
    return this.ask({ ...sample, type: "render" }, options);
  }

  /**
   * The faces of a picture, the largest first. Needs an open model, whose detector looks for them.
   * @param {Bytes} image
   * @param {{ signal?: AbortSignal }} [options]
   */
  faces(image, options) {
    return this.ask({ type: "faces", image }, options);
  }

  /**
   * The request that makes a picture again: of its PNG, and of the pictures that it was made from, in any order. Needs the model
   * that made it. `words` are the prompts, where the PNG leaves them out.
   * @param {Bytes} png
   * @param {Bytes[]} pictures
   * @param {Words} [words]
   */
  requestFor(png, pictures, words) {
    return this.ask({ type: "request", png, pictures, words: words ?? null });
  }

  /**
   * How alike the face in a picture and a person are: the cosine of the open model's identity embeddings, -1 to 1.
   * @param {Bytes} picture
   * @param {Person} person
   * @param {{ signal?: AbortSignal }} [options]
   */
  similarity(picture, person, options) {
    return this.ask({ type: "similarity", picture, person }, options);
  }

  /**
   * A random made-up face for the face maker; the same seed gives the same one.
   * @param {number} seed
   */
  randomFace(seed) {
    return this.ask({ type: "random_face", seed });
  }

  /**
   * Draws a made-up face as a PNG.
   * @param {Portrait} portrait
   * @param {number} size in pixels, 16 to 512
   */
  drawFace(portrait, size) {
    return this.ask({ type: "draw_face", portrait, size });
  }

  /** What the face maker can choose from. */
  faceMaker() {
    return this.ask({ type: "face_maker" });
  }

  /** The models that the browser's storage holds. */
  stored() {
    return this.ask({ type: "stored" });
  }

  /**
   * Removes the stored files of one model, or of all. A model that is open stays open; a large one, whose encoders are read
   * again for each picture, is fetched again when they are missing.
   * @param {string | URL} [model] the model folder
   */
  async forget(model) {
    return this.ask({ type: "forget", model: model === undefined ? null : folder(model) });
  }

  /**
   * Gives the open model's memory back, and forgets which model it was. The worker ends with it, since wasm's memory
   * never shrinks; the next question starts another. A picture that is being made is cancelled.
   */
  async unload() {
    this.#last = null;
    this.#stop(cancelled());
  }

  /** Ends the engine for good: what is pending is rejected, and so is what is asked later. */
  close() {
    this.#closed = true;
    this.#last = null;
    this.#held.clear();
    this.#stop(cancelled(CLOSED));
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
    if (this.#closed) {
      throw cancelled(CLOSED);
    }
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
      throw leaving?.aborted ? leaving.reason : thrown;
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
 * @param {URL | null} url the package's own script if null
 * @param {string} name
 */
function startWorker(url, name) {
  try {
    const elsewhere = url ?? scriptOf("worker.js");
    // So written that bundlers see it.
    return elsewhere ? spawn(elsewhere, name) : new Worker(new URL("./worker.js", import.meta.url), { type: "module", name });
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw failure(
      "internal",
      "worker-failed",
      `the engine's worker cannot be started: ${why}`,
      "allow workers in the page's policy: “worker-src 'self'”, and “blob:” where the package is another origin's",
    );
  }
}

/**
 * A signal that is aborted when one of others is, until it is freed.
 * @param {(AbortSignal | null | undefined)[]} signals
 */
export function link(...signals) {
  const controller = new AbortController();
  /** @this {AbortSignal} */
  function abort() {
    controller.abort(this.reason);
  }
  for (const signal of signals) {
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) {
      controller.abort(signal.reason);
    }
  }
  const free = () => signals.forEach((signal) => signal?.removeEventListener("abort", abort));
  return { signal: controller.signal, free };
}

/**
 * A request of several pictures as one of each, so that none waits for the others. Picture `i` has seed `seed + i`, as everywhere; what
 * is no seed or no count goes as it is, and is refused by name.
 * @param {GenerateRequest} request
 * @returns {GenerateRequest[]}
 */
function onePicture({ seed = /** @type {number} */ (crypto.getRandomValues(new Uint32Array(1))[0]), ...request }) {
  const { count = 1 } = request;
  const split = Number.isInteger(count) && count > 1 && count <= MOST_AT_ONCE && (typeof seed === "bigint" || Number.isSafeInteger(seed));
  if (!split || seed < 0 || seed > MOST_SEED) {
    return [{ ...request, seed }];
  }
  return Array.from({ length: count }, (_, i) => {
    const next = BigInt.asUintN(64, BigInt(seed) + BigInt(i));
    return { ...request, count: 1, seed: next > Number.MAX_SAFE_INTEGER ? next : Number(next) };
  });
}

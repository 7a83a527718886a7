/**
 * `FaceStudio`: a model and its engine without an interface. The element is built on it, and so can a page be.
 *
 * ```js
 * import { FaceStudio } from "facestudio";
 * const studio = new FaceStudio({ model: "/models/mini/" });
 * const [picture] = await studio.generate({ people: [], prompt: "a watercolor portrait" });
 * ```
 */

import { backendOf, bytesOf, folder, optionsOf, requestOf } from "./arguments.js";
import { EngineClient, defaultModel, link } from "./client.js";
import { cancelled } from "./protocol.js";
import { TimeLeft } from "./time-left.js";

/** @import { BackendWish, Bytes, Checked, GenerateRequest, Notice, Opened, Person, Picture, Portrait, Progress, Stored, Words } from "./protocol.js" */

/**
 * Progress with what a person wants to know of it.
 * @typedef {Progress & { bytes?: number, total_bytes?: number, seconds_left?: number }} TimedProgress
 */

/**
 * @typedef {object} FaceStudioOptions
 * @property {string | URL} [model] the model folder; default `models/mini/` beside the package's folders: see `setBase`
 * @property {BackendWish} [backend]
 */

/**
 * @typedef {object} TaskOptions
 * @property {AbortSignal} [signal]
 * @property {(progress: TimedProgress) => void} [onProgress]
 */

/** @typedef {TaskOptions & { onPicture?: (picture: Picture, index: number) => void }} GenerateOptions */

/** What a task may be given. */
const TASK = ["signal", "onProgress"];

export class FaceStudio {
  /**
   * Studios on one page that want one model share an engine, and with it the model's memory. It knows what is open and which picture
   * is the latest; a studio knows only what itself has asked for.
   */
  #engine;
  /** How many wait for the model. */
  #waiting = 0;
  /** How many requests of pictures are under way: more than one while an older one is being cancelled. */
  #making = 0;
  /** Ends everything that is under way. */
  #end = new AbortController();
  #closed = false;
  /** @type {string} */
  #model = "";
  /** @type {BackendWish} */
  #backend = "auto";
  /** Why no model can be opened: what was asked for is none. @type {unknown} */
  #unusable = null;

  /**
   * What cannot be used of the options is told of when the model is wanted; what needs no model works all the same.
   * @param {FaceStudioOptions} [options]
   */
  constructor(options) {
    try {
      const { model = defaultModel(), backend = "auto" } = optionsOf("FaceStudio", options, ["model", "backend"]);
      this.#model = String(model);
      this.#model = folder(model);
      this.#backend = backendOf(backend);
      this.#engine = EngineClient.shared({ model: this.#model, backend: this.#backend });
    } catch (thrown) {
      this.#unusable = thrown;
      this.#engine = new EngineClient();
    }
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

  /** What the open model is; null while there is none. */
  get opened() {
    return this.#closed ? null : this.#engine.opened;
  }

  /** Whether a model is open or being opened. */
  get loading() {
    return this.opened !== null || this.#waiting > 0;
  }

  /** Whether a picture is being made. */
  get busy() {
    return this.#making > 0;
  }

  /**
   * Opens the model where it is not open: fetches it, or reads it from the browser's storage. Aborting `signal`, or
   * {@link cancel}, ends that, unless somebody else waits for the model; what was fetched is kept.
   * @param {TaskOptions} [options]
   * @returns {Promise<Opened>}
   */
  async load(options) {
    const { signal, onProgress } = optionsOf("load", options, TASK);
    this.#waiting += 1;
    try {
      return await this.#asking(signal, (linked) =>
        this.#engine.open({ ...this.#wanted, ...(onProgress ? { onProgress: timed(onProgress) } : {}), signal: linked }),
      );
    } finally {
      this.#waiting -= 1;
    }
  }

  /**
   * Makes the pictures of a request, opening the model first where it is not. The latest request wins: one that is
   * under way is cancelled and rejects with code `cancelled`. Aborting `signal` cancels within one step; the promise rejects with its
   * reason. `onPicture` is called with each picture as soon as it is there: those stay though the rest be cancelled.
   * A function in the request's place is called once the model is open, and learns what it can do.
   * @param {GenerateRequest | ((opened: Opened) => GenerateRequest)} request
   * @param {GenerateOptions} [options]
   * @returns {Promise<Picture[]>}
   */
  async generate(request, options) {
    const { signal, onProgress, onPicture } = optionsOf("generate", options, [...TASK, "onPicture"]);
    const clock = new TimeLeft();
    /** @param {Opened} opened */
    const ask = (opened) => {
      const asked = requestOf(typeof request === "function" ? request(opened) : request);
      clock.pictures = countOf(asked);
      return asked;
    };
    if (typeof request !== "function") {
      requestOf(request);
    }
    this.#making += 1;
    try {
      return await this.#asking(signal, (linked) =>
        this.#engine.generate(ask, {
          ...this.#wanted,
          ...(onProgress ? { onProgress: timed(onProgress, clock) } : {}),
          ...(onPicture ? { onPicture } : {}),
          signal: linked,
        }),
      );
    } finally {
      this.#making -= 1;
    }
  }

  /** Stops everything that is under way: pictures, and the opening of the model. */
  cancel() {
    this.#end.abort(cancelled());
    this.#end = new AbortController();
  }

  /** Frees the model and its memory; the next picture opens it again. */
  unload() {
    this.cancel();
    void this.#engine.unload();
  }

  /** Ends the studio: its engine too, unless others share it. */
  close() {
    this.cancel();
    if (!this.#closed) {
      this.#closed = true;
      this.#engine.release();
    }
  }

  /**
   * What opening the model would mean: what would run, how much would be fetched, what stands in the way.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Checked>}
   */
  async check(options) {
    const { signal } = optionsOf("check", options, ["signal"]);
    this.#refuse();
    return this.#engine.check({ ...this.#wanted, ...(signal ? { signal } : {}) });
  }

  /**
   * The faces of a picture, the largest first; opens the model.
   * @param {Bytes} image
   * @param {TaskOptions} [options]
   */
  async faces(image, options) {
    bytesOf("the picture", image);
    return this.#withModel(options, (signal) => this.#engine.faces(image, { signal }));
  }

  /**
   * The request that makes a picture again: of its PNG, and of the pictures that it was made from, in any order; opens the model.
   * `words` are the prompts, where the PNG leaves them out.
   * @param {Bytes} png
   * @param {Bytes[]} pictures
   * @param {Words} [words]
   */
  async requestFor(png, pictures, words) {
    return this.#withModel(undefined, () => this.#engine.requestFor(png, pictures, words));
  }

  /**
   * How alike the face in a picture and a person are: the cosine of the model's identity embeddings, -1 to 1.
   * @param {Bytes} picture
   * @param {Person} person
   * @param {TaskOptions} [options]
   */
  async similarity(picture, person, options) {
    bytesOf("the picture", picture);
    return this.#withModel(options, (signal) => this.#engine.similarity(picture, person, { signal }));
  }

  /**
   * @template T
   * @param {TaskOptions | undefined} options
   * @param {(signal: AbortSignal) => Promise<T>} use
   */
  async #withModel(options, use) {
    return this.#asking(optionsOf("what is asked", options, TASK).signal, async (signal) => {
      await this.load({ ...options, signal });
      return use(signal);
    });
  }

  /**
   * What is asked for, until `signal` or {@link cancel} ends it.
   * @template T
   * @param {AbortSignal | undefined} signal
   * @param {(signal: AbortSignal) => Promise<T>} ask
   */
  async #asking(signal, ask) {
    this.#refuse();
    const linked = link(signal, this.#end.signal);
    try {
      return await ask(linked.signal);
    } finally {
      linked.free();
    }
  }

  get #wanted() {
    return { model: this.#model, backend: this.#backend };
  }

  /**
   * Decodes a picture to learn its size, or why it is none.
   * @param {Bytes} image
   */
  async inspect(image) {
    return this.#alive.inspect(image);
  }

  /**
   * Draws a made-up person as a PNG.
   * @param {{ seed: number, style: string, size: number }} sample
   * @param {{ onProgress?: (progress: Progress) => void }} [options] is told how much of the engine has come, where it has to
   */
  async render(sample, options) {
    return this.#alive.render(sample, options);
  }

  /**
   * A random made-up face; the same seed gives the same one.
   * @param {number} seed
   */
  async randomFace(seed) {
    return this.#alive.randomFace(seed);
  }

  /**
   * Draws a made-up face as a PNG.
   * @param {Portrait} portrait
   * @param {number} size in pixels
   */
  async drawFace(portrait, size) {
    return this.#alive.drawFace(portrait, size);
  }

  /** What made-up faces can be chosen from. */
  async faceMaker() {
    return this.#alive.faceMaker();
  }

  /**
   * The models that the browser's storage holds.
   * @returns {Promise<Stored>}
   */
  async stored() {
    return this.#alive.stored();
  }

  /** Removes the stored files of one model, or of all. @param {string} [model] */
  async forget(model) {
    return this.#alive.forget(model);
  }

  /** The engine, for what needs no model. A closed studio would start a worker that nobody ends. */
  get #alive() {
    if (this.#closed) {
      throw cancelled("the studio was closed");
    }
    return this.#engine;
  }

  /** A closed studio ends here, and one without a model has nothing to open. */
  #refuse() {
    void this.#alive;
    if (this.#unusable) {
      throw this.#unusable;
    }
  }
}

/**
 * Pictures of a request that the engine has not looked at yet.
 * @param {GenerateRequest} request
 */
export function countOf({ count = 1 }) {
  return typeof count === "number" ? count : 1;
}

/**
 * @param {(progress: TimedProgress) => void} report
 * @param {TimeLeft} [clock]
 * @returns {(progress: Progress) => void}
 */
function timed(report, clock = new TimeLeft()) {
  return (progress) => {
    const bytes = progress.phase === "fetch" ? { bytes: progress.step, total_bytes: progress.steps } : {};
    const seconds = clock.update(progress);
    report({ ...progress, ...bytes, ...(seconds === undefined ? {} : { seconds_left: seconds }) });
  };
}

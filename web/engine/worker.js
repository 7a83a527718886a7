/** The worker: owns the wasm engine and answers the page. */

import { chooseBackend, threadsFor } from "./capabilities.js";
import { checkModel } from "./check.js";
import { lossOrNone, newestDevice, watchDevices } from "./device.js";
import { deviceBytes, largestTensor, modelBytes, modelFiles, readManifest } from "./manifest.js";
import { readModel, settle } from "./model.js";
import { loadModule, running } from "./module.js";
import { unless } from "./network.js";
import { PROTOCOL, RELEASE, cancelled, failure, mismatch, stackOf, toFailure } from "./protocol.js";
import { MANIFEST, ModelStore, forgetModels, measured, putMeasured, storedModels } from "./store.js";
import { outOfMemory, trapped as lastWords } from "./trap.js";

/** @import { Answers, Ask, Choice, Notice, Progress, Reply } from "./protocol.js" */
/** @import { Wanted } from "./opening.js" */

/** @typedef {(progress: Progress) => void} Report */

/** Modules that run or are on their way, by the threads that were asked for. @type {Map<number, Promise<import("./module.js").Started>>} */
const modules = new Map();
/** Threads that were asked for last. @type {number | null} */
let newest = null;
/** @type {import("../wasm/facestudio.js").Engine | null} */
let engine = null;
/** The files of the engine's model where it is large: its components are read again and again. @type {ModelSource | null} */
let source = null;
/** Asks a graphics adapter for a picture's memory. @type {Awaited<ReturnType<typeof import("./tuning.js").pictures>> | undefined} */
let askForPicture;
/** Set when this worker cannot go on. */
let ended = false;
/** Set when wasm has trapped: its memory is in an unknown state. */
let trapped = false;
/** Tasks that run one after the other; the rest is short, and answered between their steps. */
const QUEUED = new Set(["open", "generate", "forget", "faces", "similarity"]);
/** The tail of the queue. */
let queue = Promise.resolve();
/** How to cancel each task that waits or runs, by its id. @type {Map<number, AbortController>} */
const tasksUnderWay = new Map();

/** @param {Reply} reply @param {Transferable[]} [transfer] */
function post(reply, transfer = []) {
  self.postMessage(reply, { transfer });
}

/** Who wants to hear how much of the engine has come. @type {Set<Report>} */
const waiting = new Set();

/**
 * Compiles the module for so many threads once, and checks that it is of this release.
 * @param {number} threads
 * @param {Report} [report]
 */
async function start(threads, report = () => {}) {
  newest = threads;
  waiting.add(report);
  const told = (/** @type {number} */ step, /** @type {number} */ steps) =>
    waiting.forEach((report) => report({ phase: "engine", step, steps }));
  const started = modules.get(threads) ?? loadModule(threads, told);
  modules.set(threads, started);
  const { wasm } = await started
    .catch((thrown) => {
      // The next worker may reach the server; this one may have to remember that it did not.
      end(thrown);
      throw thrown;
    })
    .finally(() => waiting.delete(report));
  const differs = mismatch({ protocol: PROTOCOL, release: RELEASE }, { protocol: PROTOCOL, release: wasm.version() });
  if (differs) {
    throw differs;
  }
  return started;
}

/** The module for what needs no model: the one that runs, or the one that a model would be opened with. */
async function anyModule(/** @type {Report} */ report = () => {}) {
  return (await start(newest ?? threadsFor((await chooseBackend("auto", gpu())).backend), report)).wasm;
}

const gpu = () => /** @type {any} */ (navigator).gpu;

/** What only graphics adapters need. */
const adapters = () => import("./tuning.js");

/** @type {{ [Type in Ask["type"]]: (ask: Extract<Ask, { type: Type }>, report: Report, signal: AbortSignal) => Promise<Answers[Type]> }} */
const tasks = {
  async hello({ protocol, release }) {
    const ours = { protocol: PROTOCOL, release: RELEASE };
    const failure = mismatch({ protocol, release }, ours);
    if (failure) {
      throw failure;
    }
    return ours;
  },

  async check({ model, backend }, _report, signal) {
    const store = await ModelStore.open(model, { create: false });
    const stored = (await store?.text(MANIFEST)) ?? null;
    const { manifest } = await readManifest(model, stored, signal);
    const choice = await unless(signal, chooseBackend(backend, gpu(), largestTensor(manifest)));
    // Where nothing is stored yet, only trying tells whether anything could be.
    const possible = store ?? (await ModelStore.possible());
    const { quota = 0, usage = 0 } = (await navigator.storage?.estimate().catch(() => null)) ?? {};
    return checkModel(manifest, choice, {
      secure: self.isSecureContext,
      stored: possible ? ((await store?.sizes()) ?? new Map()) : null,
      quota,
      usage,
      persisted: await persisted(),
      memory: /** @type {any} */ (navigator).deviceMemory ?? null,
    });
  },

  open,

  async generate({ request }, report, signal) {
    const opened = loaded();
    await unless(signal, Promise.resolve(askForPicture?.(request, opened.abilities())));
    const cancel = () => opened.cancel();
    const made = opened.generate(request, report, (/** @type {string} */ component) => bring(component, signal));
    signal.addEventListener("abort", cancel, { once: true });
    return made.finally(() => signal.removeEventListener("abort", cancel));
  },

  async faces({ image }, _report, signal) {
    // Awaited to its end, as the next task must not meet it: the page itself does not wait.
    const found = await loaded().faces(read(image));
    signal.throwIfAborted();
    return found;
  },

  async request({ png, pictures, words }) {
    return loaded().request(read(png), pictures, words);
  },

  async similarity({ picture, person }, _report, signal) {
    const measured = await loaded().similarity(read(picture), person);
    signal.throwIfAborted();
    return measured;
  },

  async cancel({ target }) {
    tasksUnderWay.get(target)?.abort(cancelled());
    return null;
  },

  async inspect({ image }) {
    return (await anyModule()).inspect_image(read(image));
  },

  async render({ seed, style, size }, report) {
    return (await anyModule(report)).render_face(seed, style, size);
  },

  async random_face({ seed }) {
    return (await anyModule()).random_face(seed);
  },

  async draw_face({ portrait, size }) {
    return (await anyModule()).draw_face(portrait, size);
  },

  async face_maker() {
    return (await anyModule()).face_maker();
  },

  async stored() {
    const models = await storedModels();
    return { persisted: await persisted(), bytes: models.reduce((sum, { bytes }) => sum + bytes, 0), models };
  },

  async forget({ model }, _report, signal) {
    await forgetModels(model ?? undefined, signal);
    return null;
  },
};

/** The page sends no Blob: it has read it. @param {import("./protocol.js").Bytes} bytes */
const read = (bytes) => /** @type {Uint8Array} */ (bytes);

/** The engine with its model; fails where none is open. */
function loaded() {
  if (!engine) {
    throw failure("input", "model-not-open", "no model is open", "open a model first");
  }
  return engine;
}

/**
 * Has a component of a large model read again, which was let go of once a picture's guidance was made.
 * @param {string} component
 * @param {AbortSignal} signal
 */
async function bring(component, signal) {
  const opened = loaded();
  try {
    await source?.reading(() => opened.load_component(component), signal);
  } catch (thrown) {
    // Files that are gone: the next picture's worker fetches them. After a trap the worker ends anyway.
    if (!signal.aborted && !(thrown instanceof WebAssembly.RuntimeError)) {
      end(thrown);
    }
    throw thrown;
  }
  // While it read no message could arrive.
  await turn();
  signal.throwIfAborted();
}

/**
 * Fetches a model and puts it onto a device; the model that was open before stays until then.
 * @param {Wanted & { held: Map<string, Blob> }} wanted
 * @param {Report} report
 * @param {AbortSignal} signal
 */
async function open({ model, backend, precision, lean, held }, report, signal) {
  const store = await ModelStore.open(model, { create: true });
  const { manifest, text, offline } = await readManifest(model, (await store?.text(MANIFEST)) ?? null, signal);
  const choice = await unless(signal, chooseBackend(backend, gpu(), largestTensor(manifest)));
  report({ phase: "engine", step: 0, steps: 1 });
  let { wasm, device: next, notices: started } = await deviceUnless(signal, choice, report);
  try {
    if (choice.backend === "webgpu") {
      const told = await unless(signal, (await adapters()).trust(next, choice, { measured, putMeasured }));
      if (choice.why === "webgpu-wrong") {
        choice.threads = threadsFor("cpu");
        const cpu = await deviceUnless(signal, choice, report);
        next.free();
        ({ wasm, device: next, notices: started } = cpu);
      }
      started = [...started, ...told];
    }
    report({ phase: "engine", step: 1, steps: 1 });
    next.check_precision(precision);
    const { files, fetched, notices } = await readModel(model, manifest, store, {
      hash: () => new wasm.Sha256(),
      signal,
      report: (step, steps) => report({ phase: "fetch", step, steps }),
      held,
      hold: (sha256, bytes) => post({ type: "held", sha256, bytes }),
    });
    const last = engine;
    if (choice.backend === "webgpu" && !last) {
      // What another model leaves is used again.
      const { askForRoom } = await adapters();
      await unless(signal, askForRoom(newestDevice(), deviceBytes(manifest, "webgpu"), "the model's weights"));
    }
    // Before it is let go of: what fails then must not be met again.
    engine = null;
    source = null;
    last?.free();
    // The engine reads there which model it is.
    files.set(MANIFEST, new Blob([text]));
    const from = new ModelSource(files, manifest, store);
    await load(next, from, lean, precision, report, signal);
    // While it loaded no message could arrive.
    await turn();
    signal.throwIfAborted();
    await store?.alone(() => settle(store, manifest, text), signal);
    engine = next;
    source = next.keeps_encoders() ? null : from;
    askForPicture =
      choice.backend === "webgpu" ? await (await adapters()).pictures(newestDevice(), files.get("vae/config.json")) : undefined;
    const { name, version } = manifest;
    const tiles = choice.backend === "webgpu" ? [...(next.tiles() ?? [])] : null;
    const opened = { choice, precision: next.precision(), tiles, model: name, version, bytes: modelBytes(manifest), fetched };
    const abilities = { ...next.abilities(), drawn_only: manifest.people === "drawn" };
    return { ...opened, abilities, notices: [...started, ...notices, ...(offline ? [offlineNotice(manifest.version)] : [])] };
  } catch (thrown) {
    // After a trap nothing of wasm may be touched.
    if (!(thrown instanceof WebAssembly.RuntimeError)) {
      next.free();
    }
    throw thrown;
  }
}

/** @param {string} version @returns {Notice} */
function offlineNotice(version) {
  return {
    code: "model-offline",
    message: `the model's server cannot be reached: the stored version ${version} is used`,
    remedy: "a newer version is looked for at the next visit",
  };
}

/** A model's files, read piece by piece. */
class ModelSource {
  /** Open while the model reads. @type {Map<string, import("./store.js").SyncReader>} */
  #handles = new Map();
  /** @type {Map<string, Blob>} */
  #files;
  /** @type {import("./manifest.js").Manifest} */
  #manifest;
  /** Where the files lie, unless they are in memory. @type {ModelStore | null} */
  #store;
  // Known to workers only, and so not to the types of a page.
  #reader = new /** @type {any} */ (globalThis).FileReaderSync();
  #buffer = new Uint8Array(0);

  /**
   * @param {Map<string, Blob>} files
   * @param {import("./manifest.js").Manifest} manifest
   * @param {ModelStore | null} store
   */
  constructor(files, manifest, store) {
    this.#files = files;
    this.#manifest = manifest;
    this.#store = store;
  }

  get paths() {
    return [...this.#files.keys()];
  }

  get sizes() {
    return [...this.#files.values()].map(({ size }) => size);
  }

  /**
   * Calls `task`, which reads, with the stored files open: between two such tasks other tabs may replace or remove them.
   * @param {() => void} task
   * @param {AbortSignal} signal
   */
  async reading(task, signal) {
    await (this.#store ? this.#store.alone(() => this.#reading(task), signal) : this.#reading(task));
  }

  /** @param {() => void} task */
  async #reading(task) {
    try {
      for (const { path, sha256 } of modelFiles(this.#manifest)) {
        // What storage had no room for is a plain Blob.
        const handle = this.#files.get(path) instanceof File ? await this.#store?.reader(sha256) : null;
        if (handle) {
          this.#handles.set(path, handle);
        }
      }
      task();
    } finally {
      this.#handles.forEach((handle) => handle.close());
      this.#handles.clear();
      this.#buffer = new Uint8Array(0);
    }
  }

  /** @param {string} path @param {number} start @param {number} end */
  read(path, start, end) {
    const handle = this.#handles.get(path);
    if (!handle) {
      const part = /** @type {Blob} */ (this.#files.get(path)).slice(start, end);
      return new Uint8Array(this.#reader.readAsArrayBuffer(part));
    }
    // Always into the same memory, which wasm copies at once: what a reader returns is not given back while wasm runs.
    if (this.#buffer.length < end - start) {
      this.#buffer = new Uint8Array(end - start);
    }
    return this.#buffer.subarray(0, handle.read(this.#buffer.subarray(0, end - start), { at: start }));
  }
}

/**
 * Loads a model from its files, at most one of which is in memory at a time.
 * @param {import("../wasm/facestudio.js").Engine} device
 * @param {ModelSource} from
 * @param {boolean} lean
 * @param {import("./protocol.js").PrecisionWish} precision
 * @param {Report} report
 * @param {AbortSignal} signal
 */
async function load(device, from, lean, precision, report, signal) {
  const steps = from.paths.length;
  const seen = new Set();
  report({ phase: "load", step: 0, steps });
  const task = () =>
    device.load(
      from.paths,
      from.sizes,
      (/** @type {string} */ path, /** @type {number} */ start, /** @type {number} */ end) => {
        if (!seen.has(path)) {
          report({ phase: "load", step: seen.size, steps });
          seen.add(path);
        }
        return from.read(path, start, end);
      },
      lean,
      precision,
    );
  await from.reading(task, signal);
  report({ phase: "load", step: steps, steps });
}

/**
 * A device for the chosen backend. When WebGPU fails to start without having been asked for by name, the CPU takes over,
 * and `choice` says why.
 * @param {Choice} choice
 * @param {Report} report
 */
async function openDevice(choice, report) {
  try {
    return await deviceOf(choice, report);
  } catch (thrown) {
    if (choice.backend !== "webgpu" || choice.why === "asked") {
      throw thrown;
    }
    choice.backend = "cpu";
    choice.threads = threadsFor("cpu");
    choice.why = "webgpu-failed";
    choice.reason = `WebGPU did not start (${toFailure(thrown).message})`;
    return deviceOf(choice, report);
  }
}

/**
 * {@link openDevice}, which is waited for no longer once the signal is aborted: what comes then is let go of.
 * @param {AbortSignal} signal
 * @param {Choice} choice
 * @param {Report} report
 */
async function deviceUnless(signal, choice, report) {
  const opening = openDevice(choice, report);
  try {
    return await unless(signal, opening);
  } catch (thrown) {
    opening.then(
      ({ device }) => device.free(),
      () => {},
    );
    throw thrown;
  }
}

/** @param {Choice} choice of which the threads become those that could be had @param {Report} report */
async function deviceOf(choice, report) {
  const { wasm, threads, notices } = await start(choice.threads, report);
  choice.threads = threads;
  return { wasm, notices, device: await wasm.Engine.open(choice.backend) };
}

/** Whether the browser has promised to keep what is stored. */
async function persisted() {
  return (await navigator.storage?.persisted?.().catch(() => false)) ?? false;
}

/** Lets waiting messages and events in. */
function turn() {
  return new Promise((resolve) => {
    setTimeout(resolve);
  });
}

/** @param {Ask & { id: number }} ask */
async function answer(ask) {
  const { id } = ask;
  const signal = tasksUnderWay.get(id)?.signal ?? new AbortController().signal;
  try {
    signal.throwIfAborted();
    if (trapped) {
      // The page is told in a moment, and everything that it asked is rejected with the reason.
      await new Promise(() => {});
    }
    const task = /** @type {(ask: Ask, report: Report, signal: AbortSignal) => Promise<unknown>} */ (tasks[ask.type]);
    if (!task) {
      throw failure("internal", "unknown-question", `unknown question “${ask.type}”`, "");
    }
    const value = await task(ask, (progress) => post({ type: "progress", id, progress }), signal);
    post({ type: "result", id, value }, buffers(value));
  } catch (thrown) {
    const trap = thrown instanceof WebAssembly.RuntimeError;
    // A trap leaves wasm's memory in an unknown state: nothing after it can be trusted, and nothing else is begun.
    trapped ||= trap;
    const exhausted = outOfMemory(running, thrown);
    const error = toFailure(exhausted ?? thrown);
    if (!exhausted && (error.fault === "device" || error.fault === "internal")) {
      // What broke may only be the first sign of a lost device, which is told of later.
      await lossOrNone();
    }
    if (trap) {
      crash(thrown);
    } else if (!ended) {
      post({ type: "error", id, error, stack: stackOf(exhausted ?? thrown) });
    }
  } finally {
    tasksUnderWay.delete(id);
  }
}

/**
 * The buffers of an answer's pictures, to hand over instead of copying.
 * @param {unknown} value
 * @returns {Transferable[]}
 */
function buffers(value) {
  const parts = Array.isArray(value) ? value.map((picture) => picture?.png) : [value];
  return parts.filter((part) => part instanceof Uint8Array).map((part) => part.buffer);
}

/**
 * Ends every task: the page replaces this worker.
 * @param {unknown} thrown
 */
function end(thrown) {
  if (!ended) {
    ended = true;
    post({ type: "crash", error: toFailure(thrown), stack: stackOf(thrown) });
  }
}

/** @param {unknown} thrown */
function crash(thrown) {
  end(lastWords(running, thrown));
}

watchDevices(end);
self.addEventListener("message", ({ data }) => {
  tasksUnderWay.set(data.id, new AbortController());
  if (QUEUED.has(data.type)) {
    queue = queue.then(() => answer(data));
  } else {
    void answer(data);
  }
});
// A panic inside a future that wasm polls ends here, and its promise never settles.
self.addEventListener("error", (event) => {
  // The page is told why: it need not also hear that the worker failed.
  event.preventDefault();
  crash(event.error ?? event.message);
});
self.addEventListener("unhandledrejection", (event) => crash(event.reason));

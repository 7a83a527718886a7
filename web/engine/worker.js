/** The worker: owns the wasm engine and answers the page. */

import init, * as wasm from "../wasm/facestudio.js";
import { forgetModels, readModel } from "./cache.js";
import { chooseBackend } from "./capabilities.js";
import { PROTOCOL, RELEASE, mismatch, toFailure } from "./protocol.js";

/** @import { Answers, Ask, Choice, Failure, Progress, Reply } from "./protocol.js" */

/** @typedef {(progress: Progress) => void} Report */

/** @type {Promise<unknown> | null} */
let started = null;
/** @type {wasm.Engine | null} */
let engine = null;
/** Tasks that run one after the other; the rest is short, and answered between their steps. */
const QUEUED = new Set(["open", "generate", "forget", "faces", "similarity"]);
/** The tail of the queue. */
let queue = Promise.resolve();
/** Id of the task that runs, or ran last; ids only grow. */
let running = 0;
/** Ids of queued tasks that were cancelled before they began. @type {Set<number>} */
const cancelled = new Set();

/** @param {Reply} reply @param {Transferable[]} [transfer] */
function post(reply, transfer = []) {
  self.postMessage(reply, { transfer });
}

/** Compiles the wasm once, and checks that it is of this release. */
async function start() {
  started ??= init();
  await started;
  const failure = mismatch({ protocol: PROTOCOL, release: RELEASE }, { protocol: PROTOCOL, release: wasm.version() });
  if (failure) {
    throw failure;
  }
}

/** @type {{ [Type in Ask["type"]]: (ask: Extract<Ask, { type: Type }>, report: Report) => Promise<Answers[Type]> }} */
const tasks = {
  async hello({ protocol, release }) {
    const ours = { protocol: PROTOCOL, release: RELEASE };
    const failure = mismatch({ protocol, release }, ours);
    if (failure) {
      throw failure;
    }
    return ours;
  },

  async open({ model, backend }, report) {
    report({ phase: "engine", step: 0, steps: 1 });
    await start();
    const choice = await chooseBackend(backend, /** @type {any} */ (navigator).gpu);
    report({ phase: "engine", step: 1, steps: 1 });
    engine?.free();
    engine = null;
    const next = await openDevice(choice);
    const { manifest, bytes } = await readModel(
      model,
      (path, file) => next.add_file(path, file),
      (step, steps) => report({ phase: "fetch", step, steps }),
    );
    report({ phase: "load", step: 0, steps: 1 });
    await next.load();
    report({ phase: "load", step: 1, steps: 1 });
    engine = next;
    return { choice, model: manifest.name, version: manifest.version, bytes, abilities: next.abilities() };
  },

  async generate({ request }, report) {
    return loaded().generate(request, report);
  },

  async faces({ image }) {
    return loaded().faces(image);
  },

  async similarity({ picture, person }) {
    return loaded().similarity(picture, person);
  },

  async cancel({ target }) {
    if (target === running) {
      engine?.cancel();
    } else if (target > running) {
      cancelled.add(target);
    }
    return null;
  },

  async inspect({ image }) {
    await start();
    return wasm.inspect_image(image);
  },

  async render({ seed, style, size }) {
    await start();
    return wasm.render_face(seed, style, size);
  },

  async random_face({ seed }) {
    await start();
    return wasm.random_face(seed);
  },

  async draw_face({ portrait, size }) {
    await start();
    return wasm.draw_face(portrait, size);
  },

  async hair_colors() {
    await start();
    return wasm.hair_colors();
  },

  async forget() {
    await forgetModels();
    return null;
  },
};

/** The engine with its model; fails where none is open. */
function loaded() {
  if (!engine) {
    throw { code: "model-not-open", fault: "input", message: "no model is open", remedy: "open a model first" };
  }
  return engine;
}

/**
 * A device for the chosen backend. When WebGPU fails to start without having been asked for by name, the CPU takes over,
 * and `choice` says why.
 * @param {Choice} choice
 */
async function openDevice(choice) {
  try {
    return await wasm.Engine.open(choice.backend);
  } catch (thrown) {
    if (choice.backend !== "webgpu" || choice.reason === "asked for by the page") {
      throw thrown;
    }
    choice.backend = "cpu";
    choice.reason = `WebGPU did not start (${toFailure(thrown).message})`;
    return wasm.Engine.open("cpu");
  }
}

/** @param {Ask & { id: number }} ask */
async function next(ask) {
  const { id } = ask;
  if (cancelled.delete(id)) {
    post({ type: "error", id, error: { code: "cancelled", fault: "cancelled", message: "cancelled", remedy: "" } });
    return;
  }
  running = id;
  await answer(ask);
  cancelled.delete(id);
}

/** @param {Ask & { id: number }} ask */
async function answer(ask) {
  const { id } = ask;
  try {
    const task = /** @type {(ask: Ask, report: Report) => Promise<unknown>} */ (tasks[ask.type]);
    if (!task) {
      throw { code: "unknown-question", fault: "internal", message: `unknown question “${ask.type}”`, remedy: "" };
    }
    const value = await task(ask, (progress) => {
      post({ type: "progress", id, progress });
    });
    post({ type: "result", id, value }, buffers(value));
  } catch (thrown) {
    // A trap leaves wasm's memory in an unknown state: nothing after it can be trusted.
    if (thrown instanceof WebAssembly.RuntimeError) {
      crash(thrown);
    } else {
      post({ type: "error", id, error: toFailure(thrown) });
    }
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

/** @param {unknown} thrown */
function crash(thrown) {
  const panic = started ? wasm.last_panic() : undefined;
  /** @type {Failure} */
  const error = {
    code: "engine-crashed",
    fault: "internal",
    message: panic ?? (thrown instanceof Error ? thrown.message : String(thrown)),
    remedy: "try again with a smaller picture; if it comes back, please report it",
  };
  post({ type: "crash", error });
}

self.addEventListener("message", ({ data }) => {
  if (QUEUED.has(data.type)) {
    queue = queue.then(() => next(data));
  } else {
    void answer(data);
  }
});
// A panic inside a future that wasm polls ends here, and its promise never settles.
self.addEventListener("error", (event) => crash(event.error ?? event.message));
self.addEventListener("unhandledrejection", (event) => crash(event.reason));

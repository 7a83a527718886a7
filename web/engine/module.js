/**
 * The compiled engine, in two modules: one with both backends, and one with the CPU's on all processors, which only a page
 * that is isolated from other origins can share memory for.
 */

import { Broken, STALL, STALLS, Stalled, connect } from "./network.js";
import { scriptOf, spawn } from "./place.js";
import { failure } from "./protocol.js";

/** @import { Notice } from "./protocol.js" */
/** What both export. @typedef {Omit<typeof import("../wasm/facestudio.js"), "default" | "initSync">} Wasm */
/**
 * @typedef {object} Started
 * @property {Wasm} wasm
 * @property {number} threads that it computes with
 * @property {Notice[]} notices
 */

/** Hears how many bytes of the module have come, and how many there are: 0 where that is not known. @typedef {(done: number, all: number) => void} Told */

/** What to do where one processor computes. */
const ALONE = "pictures take longer; a reload tries again";

/** Milliseconds until a thread that does not answer is given up. */
const PATIENCE = 30_000;

/** Pages of 64 KiB that shared memory may grow to: all that wasm can address, or what phones promise at most. */
const MOST_PAGES = [65_536, 16_384, 8_192];
/** Pages that it begins with: more than the module's own data. */
const FIRST_PAGES = 256;

/** Modules that can be called. @type {Wasm[]} */
export const running = [];

/** The threads: a browser may collect a worker that nobody names, though it computes. @type {Worker[]} */
const pool = [];

/**
 * Fetches, compiles and starts the module for so many threads; the one for a single thread where several cannot be had.
 * @param {number} threads
 * @param {Told} told
 * @returns {Promise<Started>}
 */
export async function loadModule(threads, told) {
  /** @type {Notice[]} */
  const notices = [];
  if (threads > 1) {
    try {
      return { wasm: await withThreads(threads, told), threads, notices };
    } catch (thrown) {
      const why = /** @type {{ message?: string }} */ (thrown)?.message ?? String(thrown);
      notices.push({ code: "threads-missing", message: `one processor computes: ${why}`, remedy: ALONE });
    }
  }
  try {
    const wasm = await arriving(import("../wasm/facestudio.js"));
    await wasm.default({ module_or_path: await compiled(new URL("../wasm/facestudio_bg.wasm", import.meta.url), told) });
    running.push(wasm);
    return { wasm, threads: 1, notices };
  } catch (thrown) {
    throw thrown instanceof TypeError || thrown instanceof Broken
      ? failure("io", "network", `the engine cannot be fetched: ${thrown.message}`, "check the connection, then try again")
      : thrown;
  }
}

/** @param {number} threads @param {Told} told @returns {Promise<Wasm>} */
async function withThreads(threads, told) {
  const name = self.name;
  // What a thread that traps calls the page with: where it is forbidden, none may be started.
  new BroadcastChannel(name).close();
  const memory = sharedMemory();
  const threaded = await arriving(import("../wasm-threads/facestudio.js"));
  const module = await compiled(new URL("../wasm-threads/facestudio_bg.wasm", import.meta.url), told);
  const init = { module_or_path: module, memory };
  await threaded.default(init);
  try {
    // This worker is the first.
    await Promise.all(Array.from({ length: threads - 1 }, () => startThread(name, init)));
  } catch (thrown) {
    pool.splice(0).forEach((worker) => worker.terminate());
    throw thrown;
  }
  running.push(threaded);
  threaded.start_threads(threads);
  return threaded;
}

/**
 * A script on its way, or a rejection where it does not come.
 * @template T
 * @param {Promise<T>} script
 * @returns {Promise<T>}
 */
async function arriving(script) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Stalled(`its script did not come within ${STALL / 1000} s`)), STALL);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([script, silence]));
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Compiles a module as it arrives; a connection that breaks or stalls is tried again.
 * @param {URL} url
 * @param {Told} told
 */
async function compiled(url, told) {
  for (let attempts = 1; ; attempts += 1) {
    try {
      const { response, chunks } = await connect(url.href, {}, {});
      if (!response.ok) {
        throw new Broken(`the server says ${response.status}`);
      }
      // What is packed is shorter than what arrives here.
      const all = response.headers.has("content-encoding") ? 0 : Number(response.headers.get("content-length"));
      let done = 0;
      const count = (/** @type {number} */ bytes) => {
        done += bytes;
        told(done, all);
      };
      if (response.headers.get("content-type") !== "application/wasm") {
        const parts = [];
        for await (const part of chunks()) {
          parts.push(part);
          count(part.length);
        }
        return await WebAssembly.compile(await new Blob(/** @type {BlobPart[]} */ (parts)).arrayBuffer());
      }
      // The browser compiles its own response, so that it can keep what it compiled; a copy tells whether bytes come.
      const copy = chunks(response.clone().body ?? undefined);
      const watched = (async () => {
        for await (const part of copy) {
          count(part.length);
        }
      })();
      const [module] = await Promise.all([WebAssembly.compileStreaming(response), watched]).catch(async (thrown) => {
        await watched;
        throw thrown;
      });
      return module;
    } catch (thrown) {
      if (!(thrown instanceof Broken) || attempts === STALLS) {
        throw thrown;
      }
    }
  }
}

function sharedMemory() {
  for (const maximum of MOST_PAGES) {
    try {
      return new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared: true });
    } catch {
      // This browser promises less.
    }
  }
  throw failure("device", "threads-missing", "this browser has no memory for threads to share", ALONE);
}

/**
 * Starts a worker, which is ready to be a thread when this resolves.
 * @param {string} name
 * @param {unknown} init
 */
function startThread(name, init) {
  return new Promise((resolve, reject) => {
    const elsewhere = scriptOf("thread.js");
    // So written that bundlers see it.
    const worker = elsewhere ? spawn(elsewhere, name) : new Worker(new URL("./thread.js", import.meta.url), { type: "module", name });
    pool.push(worker);
    const refuse = (/** @type {string} */ why) => reject(failure("device", "threads-missing", `a thread cannot start: ${why}`, ALONE));
    const timer = setTimeout(() => refuse("it does not answer"), PATIENCE);
    worker.addEventListener("message", ({ data }) => (clearTimeout(timer), data === null ? resolve(null) : refuse(data)), { once: true });
    worker.addEventListener("error", (event) => refuse(event.message || "its script cannot be loaded"), { once: true });
    worker.postMessage(init);
  });
}

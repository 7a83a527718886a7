/** Which backend to compute on, decided where it will run: in the worker. */

import { failure } from "./protocol.js";

/** @import { BackendWish, Choice } from "./protocol.js" */

/**
 * The parts of WebGPU's adapter that are looked at; TypeScript's DOM library does not know WebGPU everywhere.
 * @typedef {object} Adapter
 * @property {{ vendor?: string, architecture?: string, description?: string, isFallbackAdapter?: boolean }} [info]
 * @property {boolean} [isFallbackAdapter]
 * @property {Iterable<string>} features
 * @property {Record<string, number>} [limits]
 */

/**
 * @typedef {{ requestAdapter(options?: { powerPreference?: string }): Promise<Adapter | null> }} Gpu
 */

/** The limits that decide whether a model fits. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
];

/** Why a backend is used that was asked for by its name. */
const ASKED = "asked for by the page";

/** Threads beyond which a picture's tasks are too small to be shared out. */
const MOST_THREADS = 8;

/**
 * Threads that a backend would compute with here: wasm's share memory, which takes a page that is isolated from other origins.
 * @param {Choice["backend"]} backend
 */
export function threadsFor(backend) {
  // `waitAsync` is what wasm's promises wait with; where it is missing they would need a worker from a `data:` URL.
  const possible = backend === "cpu" && globalThis.crossOriginIsolated && "waitAsync" in Atomics;
  return possible ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
}

/**
 * Chooses WebGPU where there is a real one, and wasm on the CPU otherwise.
 *
 * A software adapter (SwiftShader, llvmpipe) runs shaders on the CPU, where compiled wasm is about ten times
 * faster; it is used only if asked for by name.
 *
 * @param {BackendWish} wish
 * @param {Gpu | undefined} gpu `navigator.gpu`
 * @param {number} [largest] bytes of the model's largest tensor
 * @returns {Promise<Choice>}
 */
export async function chooseBackend(wish, gpu, largest = 0) {
  const choice = await choose(wish, gpu, largest);
  return { ...choice, threads: threadsFor(choice.backend) };
}

/**
 * @param {BackendWish} wish
 * @param {Gpu | undefined} gpu
 * @param {number} largest
 * @returns {Promise<Omit<Choice, "threads">>}
 */
async function choose(wish, gpu, largest) {
  /** @type {Omit<Choice, "threads">} */
  const cpu = { backend: "cpu", why: "asked", reason: ASKED, adapter: "", software: false, features: [], limits: {} };
  if (!gpu) {
    return refuse(wish, cpu, "webgpu-missing", "this browser has no WebGPU");
  }
  let adapter;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch {
    adapter = null;
  }
  if (!adapter) {
    return refuse(wish, cpu, "webgpu-no-adapter", "this browser's WebGPU offers no adapter");
  }
  const info = adapter.info ?? {};
  const name = [info.vendor, info.architecture].filter(Boolean).join(" ") || info.description || "unnamed";
  const software = Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader|llvmpipe|software/i.test(name);
  const limits = Object.fromEntries(LIMITS.map((key) => [key, adapter.limits?.[key] ?? 0]));
  const found = { adapter: name, software, features: [...adapter.features].sort(), limits };
  if (wish !== "auto") {
    return { ...found, backend: wish, why: "asked", reason: ASKED };
  }
  if (software) {
    return { ...found, backend: "cpu", why: "webgpu-emulated", reason: `WebGPU is emulated here (${name}); compiled code is faster` };
  }
  if (largest > largestBuffer(limits)) {
    return {
      ...found,
      backend: "cpu",
      why: "webgpu-too-small",
      reason: `the model's largest tensor does not fit into a buffer of ${name}`,
    };
  }
  return { ...found, backend: "webgpu", why: "webgpu", reason: "this browser has WebGPU" };
}

/**
 * Bytes that an adapter takes in one piece.
 * @param {Record<string, number>} limits
 */
export function largestBuffer({ maxBufferSize, maxStorageBufferBindingSize }) {
  // An adapter that does not tell is not to be ruled out.
  return Math.min(maxBufferSize || Infinity, maxStorageBufferBindingSize || Infinity);
}

/**
 * The CPU in place of a WebGPU that there is not; fails where that was asked for by its name.
 * @param {BackendWish} wish
 * @param {Omit<Choice, "threads">} cpu
 * @param {Choice["why"]} why
 * @param {string} reason
 */
function refuse(wish, cpu, why, reason) {
  if (wish === "webgpu") {
    throw failure("device", "webgpu-missing", `WebGPU was asked for, but ${reason}`, "use another browser, or the backend “auto” or “cpu”");
  }
  return wish === "cpu" ? cpu : { ...cpu, why, reason };
}

/** What opening a model would mean here: what runs, what is fetched, and what stands in the way. */

import { largestBuffer } from "./capabilities.js";
import { deviceBytes, largestTensor, modelBytes, modelFiles } from "./manifest.js";

/** @import { Checked, Choice, Problem } from "./protocol.js" */
/** @import { Manifest } from "./manifest.js" */

/** What 32-bit wasm can address, less what pictures and code need. */
const WASM_BYTES = 3.5 * 2 ** 30;

/**
 * What is known of the browser.
 * @typedef {object} Surroundings
 * @property {boolean} secure HTTPS or localhost
 * @property {Map<string, number> | null} stored names and sizes of this model's stored files; null without storage
 * @property {number} quota
 * @property {number} usage
 * @property {boolean} persisted
 * @property {number | null} memory in GiB
 */

/**
 * @param {Manifest} manifest
 * @param {Choice} choice
 * @param {Surroundings} here
 * @returns {Checked}
 */
export function checkModel(manifest, choice, here) {
  const bytes = modelBytes(manifest);
  // Parts of a file count: they are not fetched again.
  const stored_bytes = modelFiles(manifest).reduce((sum, file) => sum + Math.min(file.bytes, here.stored?.get(file.sha256) ?? 0), 0);
  const needs = { bytes: deviceBytes(manifest, choice.backend), largest: largestTensor(manifest) };
  const { quota, usage, persisted } = here;
  const fetch_bytes = bytes - stored_bytes;
  return {
    choice,
    model: manifest.name,
    version: manifest.version,
    bytes,
    stored_bytes,
    fetch_bytes,
    storage: { kind: here.stored ? "opfs" : "memory", quota, usage, persisted },
    device_bytes: needs.bytes,
    device_memory: here.memory,
    limits: choice.limits,
    features: choice.features,
    problems: [...ofBackend(choice, needs), ...ofMemory(choice, needs.bytes, here), ...ofStorage(fetch_bytes, here)],
  };
}

/**
 * @param {Choice} choice
 * @param {{ bytes: number, largest: number }} needs
 * @returns {Problem[]}
 */
function ofBackend(choice, needs) {
  const problems = [];
  if (choice.adapter === "") {
    problems.push(
      warn(
        "webgpu-missing",
        `no WebGPU: ${choice.reason}; the CPU computes, which takes longer`,
        "use a current browser, and keep its hardware acceleration on",
      ),
    );
  } else if (choice.software) {
    const runs = choice.backend === "cpu" ? "compiled code on the CPU is used instead" : "it is slow";
    problems.push(
      warn(
        "webgpu-software",
        `WebGPU is emulated on the CPU (${choice.adapter}): ${runs}`,
        "turn on hardware acceleration in the browser's settings",
      ),
    );
  }
  const most = largestBuffer(choice.limits);
  if (choice.adapter !== "" && needs.largest > most) {
    const message = `the model's largest tensor takes ${mebibytes(needs.largest)}, ${choice.adapter} allows ${mebibytes(most)}`;
    problems.push(
      choice.backend === "webgpu"
        ? stop("buffer-limit", message, "use the backend “auto” or “cpu”, or a smaller model")
        : warn("buffer-limit", `${message}; the CPU computes`, "use a smaller model to compute on the GPU"),
    );
  }
  return problems;
}

/**
 * @param {Choice} choice
 * @param {number} bytes
 * @param {Surroundings} here
 * @returns {Problem[]}
 */
function ofMemory(choice, bytes, { memory }) {
  if (choice.backend === "cpu" && bytes > WASM_BYTES) {
    return [
      stop(
        "memory-limit",
        `the weights take ${mebibytes(bytes)}, WebAssembly can address ${mebibytes(WASM_BYTES)}`,
        "use a browser with WebGPU, or a smaller model",
      ),
    ];
  }
  if (memory !== null && bytes > (memory / 2) * 2 ** 30) {
    return [
      warn(
        "memory-low",
        `the weights take ${mebibytes(bytes)}, and this machine has about ${memory} GiB`,
        "close other tabs and programs, or use a smaller model",
      ),
    ];
  }
  return [];
}

/**
 * @param {number} fetch_bytes
 * @param {Surroundings} here
 * @returns {Problem[]}
 */
function ofStorage(fetch_bytes, { secure, stored, quota, usage }) {
  if (!secure) {
    return [
      warn(
        "insecure-context",
        "this page is not secure: there is no WebGPU, and no model file can be kept",
        "serve the page over HTTPS or from localhost",
      ),
    ];
  }
  if (!stored) {
    return [
      warn(
        "storage-missing",
        "this browser keeps no files here, perhaps because the window is private: each visit fetches the model again",
        "use an ordinary window",
      ),
    ];
  }
  if (fetch_bytes > quota - usage) {
    return [
      warn(
        "quota-small",
        `${mebibytes(fetch_bytes)} are to be fetched, the browser keeps ${mebibytes(Math.max(0, quota - usage))} more: the rest is held in memory, and fetched again at the next visit`,
        "free some disk space, or forget other models",
      ),
    ];
  }
  return [];
}

/** @param {number} bytes */
function mebibytes(bytes) {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}

/** @param {string} code @param {string} message @param {string} remedy @returns {Problem} */
function warn(code, message, remedy) {
  return { code, severity: "warn", message, remedy };
}

/** @param {string} code @param {string} message @param {string} remedy @returns {Problem} */
function stop(code, message, remedy) {
  return { code, severity: "stop", message, remedy };
}

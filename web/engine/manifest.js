/** `manifest.json`: which files a model has, how large they are, and what they hash to. */

import { failure, weights } from "./protocol.js";

/**
 * @typedef {{ path: string, bytes: number, sha256: string }} FileEntry
 * @typedef {object} Component
 * @property {FileEntry[]} files
 * @property {string} [dtype] how most of its weights are stored
 * @property {number} [parameters] numbers in its weights
 * @property {number} [largest_tensor] numbers in its largest tensor
 * @property {number} [large_parameters] numbers in layers that the CPU keeps in blocks of 8 bits
 */

/**
 * @typedef {object} Manifest
 * @property {number} format
 * @property {string} name
 * @property {string} version
 * @property {FileEntry[]} [files]
 * @property {Record<string, Component>} components
 */

/** The manifest format that this release reads. */
const FORMAT = 1;

/** Bytes of a number on the device, where it is not held as it is stored. */
const NUMBER = 4;

/**
 * Beginnings of the networks that are held as they are stored, in 16, 8 or 4 bits a number (`COMPACT` in
 * src/pipeline/models.rs).
 */
const COMPACT = ["unet", "text_encoder", "vision_encoder", "prior", "ip_adapter"];

/** Stored bytes of a number, for manifests that do not count them. */
const STORED = /** @type {Record<string, number>} */ ({ f32: 4, f16: 2, bf16: 2, q8: 1.0625, q4: 0.5625 });

/** Bytes of a number that is held as it is stored: the scales of blocks take 32 bits each. */
const HELD = /** @type {Record<string, number>} */ ({ f16: 2, bf16: 2, q8: 1.125, q4: 0.625 });

/**
 * The network's manifest; the stored one when the server cannot be reached.
 * @param {string} base URL of the model folder, ending in "/"
 * @param {string | null} stored text of the stored one
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ manifest: Manifest, text: string, offline: boolean }>}
 */
export async function readManifest(base, stored, signal) {
  const url = new URL("manifest.json", base).href;
  let response;
  try {
    response = await fetch(url, { cache: "no-cache", ...(signal ? { signal } : {}) });
  } catch (thrown) {
    if (signal?.aborted) {
      throw thrown;
    }
  }
  // A gateway's error says as little about the model as no answer does.
  const reached = response && response.status < 500;
  if (!reached && stored !== null) {
    return { manifest: parseManifest(stored, url), text: stored, offline: true };
  }
  if (!response?.ok) {
    const status = response ? `the server says ${response.status}` : "the server cannot be reached";
    throw weights("model-missing", `no model at ${url}: ${status}`, "check the “model” attribute, or try again later");
  }
  let text;
  try {
    text = await response.text();
  } catch (thrown) {
    if (signal?.aborted) {
      throw thrown;
    }
    throw failure("io", "network", `${url} broke off`, "check the connection, then try again");
  }
  return { manifest: parseManifest(text, url), text, offline: false };
}

/**
 * @param {string} text
 * @param {string} url for messages
 * @returns {Manifest}
 */
function parseManifest(text, url) {
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw weights("manifest", `${url} is not JSON`, "serve the model folder again");
  }
  if (manifest?.format !== FORMAT || typeof manifest.components !== "object") {
    throw weights("manifest-format", `${url} has format ${manifest?.format}; this release reads ${FORMAT}`, "reload the page");
  }
  if (!Object.values(manifest.components).every((part) => Array.isArray(part?.files))) {
    throw weights("manifest", `${url} has a component without files`, "serve the model folder again");
  }
  for (const { path, bytes, sha256 } of modelFiles(manifest)) {
    const base = new URL("./", url).href;
    if (typeof path !== "string" || !new URL(path, base).href.startsWith(base)) {
      throw weights("manifest", `“${path}” is not a path inside the model`, "serve the model folder again");
    }
    if (!Number.isSafeInteger(bytes) || bytes < 0 || !/^[0-9a-f]{64}$/.test(sha256)) {
      throw weights("manifest", `“${path}” has no valid size or sha256`, "serve the model folder again");
    }
  }
  return manifest;
}

/**
 * Every file of a model, in the order to fetch them.
 * @param {Manifest} manifest
 * @returns {FileEntry[]}
 */
export function modelFiles(manifest) {
  return [...(manifest.files ?? []), ...Object.values(manifest.components).flatMap((part) => part.files)];
}

/**
 * Size of all files together.
 * @param {Manifest} manifest
 */
export function modelBytes(manifest) {
  return modelFiles(manifest).reduce((sum, file) => sum + file.bytes, 0);
}

/**
 * What the weights take on the device, in bytes.
 * @param {Manifest} manifest
 * @param {import("./protocol.js").Backend} backend
 */
export function deviceBytes(manifest, backend) {
  const parts = Object.entries(manifest.components).map(([name, { files, dtype = "none", parameters, large_parameters = 0 }]) => {
    const stored = files.filter(({ path }) => path.endsWith(".safetensors")).reduce((sum, file) => sum + file.bytes, 0);
    const each = STORED[dtype] ?? NUMBER;
    const numbers = parameters || stored / each;
    if (!COMPACT.some((start) => name.startsWith(start)) || !HELD[dtype]) {
      return numbers * NUMBER;
    }
    // The CPU keeps blocks, of 4 bits as of 8, in large layers, and has no use for f16.
    const blocks = dtype === "q8" || dtype === "q4" ? large_parameters : 0;
    return backend === "webgpu" ? numbers * HELD[dtype] : blocks * HELD.q8 + (numbers - blocks) * NUMBER;
  });
  return Math.round(parts.reduce((sum, bytes) => sum + bytes, 0));
}

/**
 * What the largest tensor takes on the device, which must fit into one buffer, in bytes; 0 where the manifest does not say.
 * Which one it is it never says, and a table of tokens is held in full.
 * @param {Manifest} manifest
 */
export function largestTensor(manifest) {
  return NUMBER * Math.max(0, ...Object.values(manifest.components).map((part) => part.largest_tensor ?? 0));
}

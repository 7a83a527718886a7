/** `manifest.json`: which files a model has, how large they are, and what they hash to. */

import { isRecord, shown, urlOf } from "./arguments.js";
import { Broken, STALL, STALLS, Stalled, connect, isBusy, textOf } from "./network.js";
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
 * @property {"drawn" | "photographed"} [people] which the model has seen, where that is known
 * @property {FileEntry[]} [files]
 * @property {Record<string, Component>} components
 */

/** The manifest format that this release reads. */
const FORMAT = 1;

/** Bytes of a number on the device, where it is not held as it is stored. */
const NUMBER = 4;

/**
 * Beginnings of the networks that are held as they are stored, in 16, 8 or 4 bits a number (what src/pipeline/ loads with
 * `load_compact`).
 */
const COMPACT = ["unet", "transformer", "text_encoder", "vision_encoder", "prior", "ip_adapter"];

/** Stored bytes of a number, for manifests that do not count them. */
const STORED = new Map([
  ["f32", 4],
  ["f16", 2],
  ["bf16", 2],
  ["q8", 1.0625],
  ["q4", 0.5625],
]);

/** Bytes of a number in blocks of 8 bits. */
const BLOCKS = 1.125;

/** Bytes of a number that is held as it is stored: the scales of blocks take 32 bits each. */
const HELD = new Map([
  ["f16", 2],
  ["bf16", 2],
  ["q8", BLOCKS],
  ["q4", 0.625],
]);

/** Most bytes of a manifest: thousands of files, and how they were made. */
const MOST_BYTES = 16 << 20;

/** Most components and files of a model. */
const MOST_FILES = 10_000;

/** Most letters of a name. */
const MOST_NAME = 1000;

/** Of the addresses of models that were made here, and are in this browser's storage alone. */
const LOCAL = "local:";

/** Milliseconds that a server is given where there is a stored manifest to go on with. */
const PATIENCE = 5_000;

/**
 * The network's manifest; the stored one when the server cannot be reached, or stalls.
 * @param {string} base URL of the model folder, ending in "/"
 * @param {string | null} stored text of the stored one
 * @param {AbortSignal} [signal]
 * @param {number} [stall] milliseconds without a byte that a connection is given
 * @returns {Promise<{ manifest: Manifest, text: string, offline: boolean }>}
 */
export async function readManifest(base, stored, signal, stall = STALL) {
  const url = new URL("manifest.json", base).href;
  const kept = ofStored(stored, url);
  if (new URL(url).protocol === LOCAL) {
    if (!kept) {
      throw weights("model-missing", `this browser holds no model ${base}`, "make it again: choose it under Models");
    }
    return { ...kept, offline: false };
  }
  const patience = kept ? Math.min(stall, PATIENCE) : stall;
  for (let tries = 1, reached = false; ; tries += 1) {
    try {
      const connection = await connect(url, { cache: "no-cache" }, { signal, stall: patience });
      reached = true;
      const { ok, status } = connection.response;
      if (!ok) {
        connection.close();
        // A gateway's error says as little about the model as no answer does.
        if (kept && isBusy(status)) {
          return kept;
        }
        throw weights("model-missing", `no model at ${url}: the server says ${status}`, "check the “model” attribute, or try again later");
      }
      const text = await textOf(connection, MOST_BYTES);
      if (text === null) {
        throw weights("manifest", `${url} has more than ${MOST_BYTES >> 20} MiB`, REMEDY);
      }
      return { manifest: parseManifest(text, url), text, offline: false };
    } catch (thrown) {
      if (!(thrown instanceof Broken)) {
        throw thrown;
      }
      if (kept) {
        return kept;
      }
      const refused = !reached && !(thrown instanceof Stalled);
      if (refused || tries === STALLS) {
        const times = refused ? "" : `, ${tries} times in a row`;
        throw failure("io", "network", `${url}: ${thrown.message}${times}`, "check the connection, then try again");
      }
    }
  }
}

/**
 * What is stored, if it is a manifest.
 * @param {string | null} text
 * @param {string} url
 */
function ofStored(text, url) {
  try {
    return text === null ? null : { manifest: parseManifest(text, url), text, offline: true };
  } catch {
    return null;
  }
}

const REMEDY = "serve the model folder again";

/**
 * A manifest from anywhere: whatever it holds, what comes out is of the right types and of a bounded size.
 * @param {string} text
 * @param {string} url for messages
 * @returns {Manifest}
 */
export function parseManifest(text, url) {
  const invalid = (/** @type {string} */ why) => weights("manifest", `${url} ${why}`, REMEDY);
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw invalid("is not JSON");
  }
  if (!isRecord(found)) {
    throw invalid(`is ${shown(found)}, not an object`);
  }
  if (found.format !== FORMAT) {
    throw weights("manifest-format", `${url} has format ${shown(found.format)}; this release reads ${FORMAT}`, "reload the page");
  }
  const { name, version, files, components } = found;
  for (const [key, value] of Object.entries({ name, version })) {
    if (typeof value !== "string" || value.length > MOST_NAME) {
      throw invalid(`has ${shown(value)} for its ${key}`);
    }
  }
  if (!isRecord(components)) {
    throw invalid(`has ${shown(components)} for its components`);
  }
  const entries = Object.entries(components);
  const lists = [files ?? [], ...entries.map(([, part]) => (isRecord(part) ? part.files : null))];
  const at = lists.findIndex((list) => !Array.isArray(list));
  if (at >= 0) {
    throw invalid(at === 0 ? `has ${shown(files)} for its files` : `has no list of files for ${shown(entries[at - 1]?.[0])}`);
  }
  const count = lists.reduce((sum, list) => sum + list.length, entries.length);
  if (count > MOST_FILES) {
    throw invalid(`lists ${count} components and files; at most ${MOST_FILES} are read`);
  }
  for (const [key, part] of entries) {
    const numbers = [part.parameters, part.largest_tensor, part.large_parameters];
    if (part.dtype !== undefined && typeof part.dtype !== "string") {
      throw invalid(`has ${shown(part.dtype)} for the dtype of ${shown(key)}`);
    }
    if (!numbers.every((value) => value === undefined || isCount(value))) {
      throw invalid(`has a number of parameters of ${shown(key)} that is none`);
    }
  }
  const folder = new URL("./", url).href;
  const seen = new Map();
  for (const file of lists.flat()) {
    const { path, bytes, sha256 } = isRecord(file) ? file : {};
    if (typeof path !== "string" || !isInside(path, folder)) {
      throw invalid(`lists ${shown(path)}, which is not a path inside the model`);
    }
    if (!isCount(bytes) || typeof sha256 !== "string" || !/^[0-9a-f]{64}$/.test(sha256)) {
      throw invalid(`has no valid size or sha256 for ${shown(path)}`);
    }
    if (seen.has(path)) {
      throw invalid(`lists ${shown(path)} twice`);
    }
    seen.set(path, sha256);
  }
  return /** @type {any} */ (found);
}

/**
 * Whether a path names a file below a folder, as itself and not by way of another.
 * @param {string} path
 * @param {string} folder
 */
function isInside(path, folder) {
  const plain = !/[\\:?#\0]/.test(path) && path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  return plain && (urlOf(path, folder)?.href.startsWith(folder) ?? false);
}

/** @param {unknown} value */
function isCount(value) {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
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
    const each = STORED.get(dtype) ?? NUMBER;
    const numbers = parameters || stored / each;
    const held = HELD.get(dtype);
    if (!COMPACT.some((start) => name.startsWith(start)) || !held) {
      return numbers * NUMBER;
    }
    // The CPU keeps blocks, of 4 bits as of 8, in large layers, and has no use for f16.
    const blocks = dtype === "q8" || dtype === "q4" ? large_parameters : 0;
    return backend === "webgpu" ? numbers * held : blocks * BLOCKS + (numbers - blocks) * NUMBER;
  });
  return Math.round(parts.reduce((sum, bytes) => sum + bytes, 0));
}

/**
 * What the largest tensor takes on the device, which must fit into one buffer, in bytes; 0 where the manifest does not say.
 * Which one it is it never says, and a table of tokens is held in full.
 * @param {Manifest} manifest
 */
export function largestTensor(manifest) {
  return NUMBER * Object.values(manifest.components).reduce((most, part) => Math.max(most, part.largest_tensor ?? 0), 0);
}

/** A model's files, from storage or the network, checked and ready to be read. */

import { download } from "./download.js";
import { modelBytes, modelFiles } from "./manifest.js";
import { Sink } from "./sink.js";
import { MANIFEST } from "./store.js";

/** @import { Manifest } from "./manifest.js" */
/** @import { Notice } from "./protocol.js" */
/** @import { ModelStore } from "./store.js" */
/** @import { Hash } from "./download.js" */

/** Least milliseconds between two reports. */
const REPORT_EVERY = 50;

/**
 * Every file of a model, verified; what is stored is not fetched, and what is fetched is stored where that is possible.
 *
 * @param {string} base URL of the model folder, ending in "/"
 * @param {Manifest} manifest
 * @param {ModelStore | null} store
 * @param {object} options
 * @param {() => Hash} options.hash
 * @param {AbortSignal} options.signal
 * @param {(done: number, total: number) => void} options.report in bytes
 * @returns {Promise<{ files: Map<string, Blob>, fetched: number, notices: Notice[] }>}
 */
export async function readModel(base, manifest, store, { hash, signal, report }) {
  const total = modelBytes(manifest);
  const files = new Map();
  let [done, fetched, inMemory, reported] = [0, 0, 0, 0];
  report(0, total);
  for (const file of modelFiles(manifest)) {
    const sink = await Sink.open(store, file.sha256);
    fetched += await download(new URL(file.path, base).href, file, sink, {
      hash,
      signal,
      report: (count) => {
        const now = performance.now();
        if (now - reported >= REPORT_EVERY) {
          reported = now;
          report(done + Math.min(count, file.bytes), total);
        }
      },
    });
    files.set(file.path, await sink.blob());
    done += file.bytes;
    inMemory += sink.inMemory ? file.bytes : 0;
    report(done, total);
  }
  return { files, fetched, notices: notices(inMemory, total, store) };
}

/**
 * @param {number} inMemory
 * @param {number} total
 * @param {ModelStore | null} store
 * @returns {Notice[]}
 */
function notices(inMemory, total, store) {
  if (inMemory === 0) {
    return [];
  }
  const megabytes = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  return [
    store
      ? {
          code: "storage-full",
          message: `the browser's storage is full: ${megabytes(inMemory)} of ${megabytes(total)} are held in memory, and fetched again at the next visit`,
          remedy: "free some disk space, or forget other models",
        }
      : {
          code: "storage-missing",
          message: "this browser keeps no files here, perhaps because the window is private: the next visit fetches the model again",
          remedy: "use an ordinary window",
        },
  ];
}

/**
 * Notes that a model has been loaded, and drops the files of its older versions.
 * @param {ModelStore} store
 * @param {Manifest} manifest
 * @param {string} text of the manifest
 */
export async function settle(store, manifest, text) {
  const kept = new Set([MANIFEST, ...modelFiles(manifest).map((file) => file.sha256)]);
  for (const name of (await store.sizes()).keys()) {
    if (!kept.has(name)) {
      await store.remove(name);
    }
  }
  try {
    await store.putText(MANIFEST, text);
  } catch (thrown) {
    // A full storage holds too few of the files anyway.
    if (!(thrown instanceof Error && thrown.name === "QuotaExceededError")) {
      throw thrown;
    }
    await store.remove(MANIFEST);
  }
}

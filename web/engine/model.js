/** A model's files, from storage or the network, checked and ready to be read. */

import { download, pause } from "./download.js";
import { modelBytes, modelFiles } from "./manifest.js";
import { Sink } from "./sink.js";
import { MANIFEST } from "./store.js";

/** @import { Manifest } from "./manifest.js" */
/** @import { Notice } from "./protocol.js" */
/** @import { ModelStore } from "./store.js" */
/** @import { Hash } from "./download.js" */

/** Least milliseconds between two reports. */
const REPORT_EVERY = 50;

/** Milliseconds between two looks at what another tab fetches. */
const LOOK_EVERY = 250;

/** Milliseconds after which another tab that brings nothing new is waited for no longer. */
const PATIENCE = 4_000;

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
 * @param {Map<string, Blob>} [options.held] what storage had no room for in this visit, by hash
 * @param {(sha256: string, bytes: Blob) => void} [options.hold] takes what storage has no room for
 * @returns {Promise<{ files: Map<string, Blob>, fetched: number, notices: Notice[] }>}
 */
export async function readModel(base, manifest, store, { hash, signal, report, held, hold = () => {} }) {
  const total = modelBytes(manifest);
  const files = new Map();
  const memory = { bytes: 0, failed: false };
  let [done, fetched, reported] = [0, 0, 0];
  report(0, total);
  for (const file of modelFiles(manifest)) {
    const { sha256 } = file;
    const told = (/** @type {number} */ count) => {
      const now = performance.now();
      if (now - reported >= REPORT_EVERY) {
        reported = now;
        report(done + Math.min(count, file.bytes), total);
      }
    };
    const fetching = async () => {
      const sink = await Sink.open(store, sha256, signal, held?.get(sha256));
      try {
        fetched += await download(new URL(file.path, base).href, file, sink, { hash, signal, report: told });
        return await sink.blob();
      } finally {
        if (sink.inMemory) {
          memory.bytes += file.bytes;
          memory.failed ||= sink.why === "failed";
          hold(sha256, await sink.blob());
        }
      }
    };
    files.set(file.path, await (store ? once(store, sha256, signal, told, fetching) : fetching()));
    done += file.bytes;
    report(done, total);
  }
  return { files, fetched, notices: notices(memory, total, store) };
}

/**
 * Runs `fetching` when no other tab fetches that file, or the one that does brings nothing any more: what it brings needs not be
 * fetched here, but nobody waits for a connection that stalls there.
 * @template T
 * @param {ModelStore} store
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {(count: number) => void} report bytes that are there
 * @param {() => Promise<T>} fetching
 * @returns {Promise<T>}
 */
async function once(store, name, signal, report, fetching) {
  let [size, since] = [-1, performance.now()];
  while (performance.now() - since < PATIENCE) {
    const done = await store.fetching(name, async () => ({ value: await fetching() }));
    if (done) {
      return done.value;
    }
    const now = (await store.file(name))?.size ?? 0;
    if (now !== size) {
      [size, since] = [now, performance.now()];
      report(size);
    }
    await pause(LOOK_EVERY, signal);
  }
  return fetching();
}

/**
 * @param {{ bytes: number, failed: boolean }} memory what is held there
 * @param {number} total
 * @param {ModelStore | null} store
 * @returns {Notice[]}
 */
function notices({ bytes, failed }, total, store) {
  if (bytes === 0) {
    return [];
  }
  const megabytes = (/** @type {number} */ count) => `${(count / 1e6).toFixed(1)} MB`;
  const held = `${megabytes(bytes)} of ${megabytes(total)} are held in memory, and fetched again at the next visit`;
  if (!store) {
    return [
      {
        code: "storage-missing",
        message: "this browser keeps no files here, perhaps because the window is private: the next visit fetches the model again",
        remedy: "use an ordinary window",
      },
    ];
  }
  return [
    failed
      ? {
          code: "storage-failed",
          message: `the browser's storage failed: ${held}`,
          remedy: "delete the model's files, then reload the page",
        }
      : { code: "storage-full", message: `the browser's storage is full: ${held}`, remedy: "free some disk space, or forget other models" },
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
  try {
    for (const name of (await store.sizes()).keys()) {
      if (!kept.has(name)) {
        // One that another tab holds is dropped at the next visit.
        await store.remove(name).catch(() => {});
      }
    }
    await store.putText(MANIFEST, text);
  } catch (thrown) {
    // A full storage holds too few of the files anyway, and one that fails has been told of.
    if (!(thrown instanceof DOMException)) {
      throw thrown;
    }
    await store.remove(MANIFEST).catch(() => {});
  }
}

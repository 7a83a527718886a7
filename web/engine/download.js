/** One file over a network that fails: resumed by range, retried with growing pauses, and never with another hash. */

import { failure, weights } from "./protocol.js";

/** @import { FileEntry } from "./manifest.js" */
/** @import { Sink } from "./sink.js" */

/** SHA-256 of what arrives in pieces: wasm's, since WebCrypto's wants a file whole. */
/** @typedef {{ update(bytes: Uint8Array): void, finish(): string, free(): void }} Hash */

/** Milliseconds between attempts; each attempt that comes further than all before begins anew. */
export const PAUSES = [250, 500, 1000, 2000, 4000];

/** An attempt that may succeed when it is made again. */
class Broken extends Error {}

/**
 * Completes `sink` until it holds `file`. What it held before is kept where it is the file's beginning.
 *
 * @param {string} url
 * @param {FileEntry} file
 * @param {Sink} sink
 * @param {object} options
 * @param {() => Hash} options.hash
 * @param {AbortSignal} options.signal
 * @param {(count: number) => void} [options.report] bytes of the file that are there
 * @param {number[]} [options.pauses]
 * @returns {Promise<number>} bytes that came over the network
 */
export async function download(url, file, sink, { hash, signal, report = () => {}, pauses = PAUSES }) {
  let fetched = 0;
  // Damaged storage, or a file that changed between two parts, is put right by fetching once from the beginning.
  for (const last of [false, true]) {
    if (sink.size > file.bytes) {
      await sink.reset();
    }
    const digest = new Running(hash);
    let lost = false;
    try {
      for await (const bytes of chunks((await sink.blob()).stream())) {
        signal.throwIfAborted();
        digest.update(bytes);
      }
      // A server that knows no ranges and always breaks off brings something each time, and never the end.
      let [failures, furthest] = [0, sink.size];
      while (sink.size < file.bytes) {
        try {
          await attempt(url, file, sink, digest, signal, (count) => {
            fetched += count;
            report(sink.size);
          });
        } catch (thrown) {
          if (!(thrown instanceof Broken)) {
            throw thrown;
          }
          failures = sink.size > furthest ? 0 : failures + 1;
          furthest = Math.max(furthest, sink.size);
          if (failures > pauses.length) {
            throw failure("io", "network", `${url}: ${thrown.message}`, "check the connection, then try again");
          }
          await pause(pauses[Math.max(0, failures - 1)] ?? 0, signal);
        }
      }
      if (sink.size === file.bytes && digest.finish() === file.sha256) {
        // The hash is of what arrived: a storage that has run full may hold less than it took.
        lost = (await sink.blob()).size !== file.bytes;
        if (!lost) {
          await sink.resume(null);
          return fetched;
        }
      }
    } finally {
      digest.reset();
      // What has arrived stays for the next visit.
      await sink.blob();
    }
    await sink.reset();
    if (lost) {
      sink.stayInMemory();
    }
    if (last) {
      break;
    }
  }
  throw weights("file-corrupt", `${file.path} is not what the manifest says`, "reload the page to fetch it again");
}

/**
 * Asks for what `sink` lacks and appends what comes.
 * @param {string} url
 * @param {FileEntry} file
 * @param {Sink} sink
 * @param {Running} digest
 * @param {AbortSignal} signal
 * @param {(count: number) => void} arrived
 */
async function attempt(url, file, sink, digest, signal, arrived) {
  const start = sink.size;
  const response = await ask(url, start, sink.tag, signal);
  if (start > 0 && response.status !== 206) {
    // The server does not know ranges, or the file is another by now.
    await sink.reset();
    digest.reset();
  }
  const tag = response.headers.get("etag");
  await sink.resume(tag?.startsWith('"') && isOurs(url) ? tag : null);
  try {
    for await (const bytes of chunks(/** @type {ReadableStream} */ (response.body))) {
      signal.throwIfAborted();
      await sink.append(bytes);
      digest.update(bytes);
      arrived(bytes.length);
      if (sink.size > file.bytes) {
        break;
      }
    }
  } catch (thrown) {
    // A stream that breaks off rejects with a TypeError, whatever the reason.
    if (signal.aborted || !(thrown instanceof TypeError)) {
      throw thrown;
    }
    throw new Broken(`it broke off after ${sink.size} of ${file.bytes} bytes`);
  }
  if (sink.size < file.bytes) {
    throw new Broken(`it ended after ${sink.size} of ${file.bytes} bytes`);
  }
}

/**
 * @param {string} url
 * @param {number} start
 * @param {string | null} tag
 * @param {AbortSignal} signal
 */
async function ask(url, start, tag, signal) {
  /** @type {Record<string, string>} */
  const headers = start > 0 ? { range: `bytes=${start}-`, ...(tag ? { "if-range": tag } : {}) } : {};
  let response;
  try {
    // The files are kept by hash already: no second copy in the browser's own cache.
    response = await fetch(url, { headers, signal, cache: "no-store" });
  } catch (thrown) {
    if (signal.aborted) {
      throw thrown;
    }
    throw new Broken("it cannot be reached");
  }
  const { status } = response;
  const begins = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  if (start > 0 && (status === 416 || (status === 206 && begins !== undefined && Number(begins) !== start))) {
    // Another part than what was asked for: without a range, then.
    await response.body?.cancel();
    return ask(url, 0, null, signal);
  }
  if (status === 408 || status === 429 || status >= 500) {
    throw new Broken(`the server says ${status}`);
  }
  if (!response.ok || !response.body) {
    throw weights("file-missing", `${url}: the server says ${status}`, "serve the whole model folder");
  }
  return response;
}

/** A hash that can begin anew. */
class Running {
  #begin;
  /** @type {Hash | null} */
  #hash = null;

  /** @param {() => Hash} begin */
  constructor(begin) {
    this.#begin = begin;
  }

  /** @param {Uint8Array} bytes */
  update(bytes) {
    this.#hash ??= this.#begin();
    this.#hash.update(bytes);
  }

  finish() {
    const hash = this.#hash ?? this.#begin();
    this.#hash = null;
    return hash.finish();
  }

  reset() {
    this.#hash?.free();
    this.#hash = null;
  }
}

/**
 * A stream's chunks; leaving the loop cancels it.
 * @param {ReadableStream<Uint8Array>} stream
 */
async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      yield part.value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Another origin's server would have to allow `If-Range` first; the hash decides anyway. @param {string} url */
function isOurs(url) {
  return new URL(url).origin === globalThis.location?.origin;
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve(undefined);
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

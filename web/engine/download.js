/** One file over a network that fails: resumed by range, retried with growing pauses, and never with another hash. */

import { Broken, STALL, STALLS, Stalled, connect, isBusy } from "./network.js";
import { failure, weights } from "./protocol.js";
import { Lost } from "./sink.js";

/** @import { FileEntry } from "./manifest.js" */
/** @import { Connection } from "./network.js" */
/** @import { Sink } from "./sink.js" */

/** SHA-256 of what arrives in pieces: wasm's, since WebCrypto's wants a file whole. */
/** @typedef {{ update(bytes: Uint8Array): void, finish(): string, free(): void }} Hash */

/** Milliseconds between attempts; each attempt that comes further than all before begins anew. */
export const PAUSES = [250, 500, 1000, 2000, 4000];

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
 * @param {number} [options.stall] milliseconds without a byte that a connection is given
 * @param {Record<string, string>} [options.headers] of each request
 * @param {(status: number) => Error} [options.refused] what an answer means that no other try will change
 * @param {string} [options.remedy] of a file that is another than it should be
 * @returns {Promise<number>} bytes that came over the network
 */
export async function download(url, file, sink, options) {
  const { hash, signal, report = () => {}, pauses = PAUSES, stall = STALL, headers = {}, refused } = options;
  /** @type {Asking} */
  const asking = { signal, stall, headers, refused: refused ?? ((status) => unserved(url, status)) };
  let [fetched, wrong] = [0, false];
  const digest = new Running(hash);
  const arrived = (/** @type {number} */ count) => {
    fetched += count;
    report(sink.size);
  };
  try {
    for (;;) {
      digest.reset();
      try {
        if (sink.size > file.bytes) {
          await sink.reset();
        }
        await sink.read((bytes) => digest.update(bytes));
        await complete(url, file, sink, digest, { ...asking, pauses, arrived });
        await sink.flush();
      } catch (thrown) {
        if (thrown instanceof Lost) {
          // It goes on in memory, from what storage still has.
          continue;
        }
        throw thrown;
      }
      const right = sink.size === file.bytes && digest.finish() === file.sha256;
      if (right && !sink.doubtful) {
        await sink.resume(null);
        return fetched;
      }
      if (!right) {
        // Damaged storage, or a file that changed between two parts, is put right by fetching once from the beginning.
        await sink.reset();
        if (wrong) {
          throw weights(
            "file-corrupt",
            `${file.path} is not what the manifest says`,
            options.remedy ?? "reload the page to fetch it again",
          );
        }
        wrong = true;
      }
    }
  } finally {
    digest.reset();
    // What has arrived stays for the next visit.
    await sink.flush().catch(() => {});
  }
}

/**
 * Asks for what `sink` lacks, again and again while that helps.
 * @param {string} url
 * @param {FileEntry} file
 * @param {Sink} sink
 * @param {Running} digest
 * @param {Asking & { pauses: number[], arrived: (count: number) => void }} options
 */
async function complete(url, file, sink, digest, { pauses, arrived, ...asking }) {
  // A server that knows no ranges and always breaks off brings something each time, and never the end.
  let [failures, stalls, furthest] = [0, 0, sink.size];
  while (sink.size < file.bytes) {
    try {
      await attempt(url, file, sink, digest, { ...asking, arrived });
    } catch (thrown) {
      if (!(thrown instanceof Broken)) {
        throw thrown;
      }
      await sink.flush();
      const further = sink.size > furthest;
      furthest = Math.max(furthest, sink.size);
      failures = further ? 0 : failures + 1;
      stalls = (further ? 0 : stalls) + Number(thrown instanceof Stalled);
      if (failures > pauses.length || stalls >= STALLS) {
        const times = thrown instanceof Stalled ? `, ${stalls} times in a row` : "";
        throw failure("io", "network", `${url}: ${thrown.message}${times}`, "check the connection, then try again");
      }
      await pause(Math.max(thrown.after, pauses[Math.max(0, failures - 1)] ?? 0), asking.signal);
    }
  }
}

/**
 * Asks once for what `sink` lacks and appends what comes.
 * @param {string} url
 * @param {FileEntry} file
 * @param {Sink} sink
 * @param {Running} digest
 * @param {Asking & { arrived: (count: number) => void }} options
 */
async function attempt(url, file, sink, digest, { arrived, ...asking }) {
  let connection = await ask(url, sink.size, sink.tag, asking);
  if (sink.size > 0 && !goesOn(connection.response, sink.size)) {
    // The server does not know ranges, sends another part, or the file is another by now.
    if (connection.response.status !== 200) {
      connection.close();
      connection = await ask(url, 0, null, asking);
    }
    await sink.reset();
    digest.reset();
  }
  if (sink.size === 0 && connection.response.status === 206 && !goesOn(connection.response, 0)) {
    connection.close();
    throw new Broken("the server sends a part that was not asked for");
  }
  const tag = connection.response.headers.get("etag");
  await sink.resume(tag?.startsWith('"') && isOurs(url) ? tag : null);
  for await (const bytes of connection.chunks()) {
    asking.signal.throwIfAborted();
    // No more than the manifest says, however much a server sends.
    const wanted = bytes.subarray(0, file.bytes - sink.size);
    await sink.append(wanted);
    digest.update(wanted);
    arrived(wanted.length);
    if (sink.size >= file.bytes) {
      return;
    }
  }
  throw new Broken(`it ended after ${sink.size} of ${file.bytes} bytes`);
}

/**
 * Whether a response goes on at a byte. Another origin's server may not let its range be seen: the hash decides then.
 * @param {Response} response
 * @param {number} start
 */
function goesOn({ status, headers }, start) {
  const range = headers.get("content-range");
  return status === 206 && (range === null || Number(/^bytes (\d+)-/.exec(range)?.[1] ?? NaN) === start);
}

/**
 * How a server is asked.
 * @typedef {{ signal: AbortSignal, stall: number, headers: Record<string, string>, refused: (status: number) => Error }} Asking
 */

/**
 * @param {string} url
 * @param {number} start
 * @param {string | null} tag
 * @param {Asking} asking
 * @returns {Promise<Connection>}
 */
async function ask(url, start, tag, { signal, stall, headers, refused }) {
  const range = start > 0 ? { range: `bytes=${start}-`, ...(tag ? { "if-range": tag } : {}) } : {};
  // The files are kept by hash already: no second copy in the browser's own cache.
  const connection = await connect(url, { headers: { ...headers, ...range }, cache: "no-store" }, { signal, stall });
  const { status, ok, body } = connection.response;
  if ((ok && body) || (status === 416 && start > 0)) {
    return connection;
  }
  connection.close();
  if (isBusy(status)) {
    throw new Broken(`the server says ${status}`, waitOf(connection.response));
  }
  throw refused(status);
}

/** @param {string} url @param {number} status */
function unserved(url, status) {
  return weights("file-missing", `${url}: the server says ${status}`, "serve the whole model folder");
}

/** Milliseconds that a busy server asks to be left alone, a minute at most. @param {Response} response */
function waitOf({ headers }) {
  const seconds = Number(headers.get("retry-after") ?? 0);
  return seconds > 0 ? Math.min(seconds, 60) * 1000 : 0;
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

/** Another origin's server would have to allow `If-Range` first; the hash decides anyway. @param {string} url */
function isOurs(url) {
  return new URL(url).origin === globalThis.location?.origin;
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
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

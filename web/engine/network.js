/** The network as it is: connections that stall, break off, or answer with something else. All that the worker fetches comes this way. */

/** Milliseconds without a byte after which a connection counts as broken. */
export const STALL = 20_000;

/** How often in a row a connection may stall before it is given up. */
export const STALLS = 3;

/** An attempt that may succeed when it is made again. */
export class Broken extends Error {
  /** @param {string} message @param {number} [after] milliseconds to wait before it is made again */
  constructor(message, after = 0) {
    super(message);
    this.after = after;
  }
}

/** A connection that brought no byte for too long. */
export class Stalled extends Broken {}

/**
 * @typedef {object} Connection
 * @property {Response} response
 * @property {(stream?: ReadableStream<Uint8Array>) => AsyncGenerator<Uint8Array, void>} chunks the body's, or those of a clone; leaving
 *   the loop ends the connection
 * @property {() => void} close
 */

/**
 * Whether a server's status says that it may answer otherwise in a while.
 * @param {number} status
 */
export function isBusy(status) {
  return status === 408 || status === 429 || status >= 500;
}

/**
 * `fetch`, which gives up where nothing comes for `stall` milliseconds, neither an answer nor a byte of it: rejects with
 * {@link Broken} then and where the connection breaks, and with the signal's reason when that is aborted.
 * @param {string} url
 * @param {RequestInit} init
 * @param {{ signal?: AbortSignal | undefined, stall?: number }} options
 * @returns {Promise<Connection>}
 */
export async function connect(url, init, { signal, stall = STALL }) {
  const controller = new AbortController();
  const leave = () => controller.abort(signal?.reason);
  const close = () => {
    signal?.removeEventListener("abort", leave);
    controller.abort();
  };
  /**
   * @template T
   * @param {Promise<T>} next
   * @param {string} otherwise what it means when `next` fails
   */
  const alive = async (next, otherwise) => {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const silence = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Stalled(`no byte came for ${stall / 1000} s`)), stall);
    });
    try {
      return await unless(signal, Promise.race([next, /** @type {Promise<never>} */ (silence)]));
    } catch (thrown) {
      close();
      // A connection that fails rejects with a TypeError, whatever the reason.
      throw thrown instanceof TypeError ? new Broken(otherwise) : thrown;
    } finally {
      clearTimeout(timer);
    }
  };
  signal?.throwIfAborted();
  signal?.addEventListener("abort", leave, { once: true });
  const response = await alive(fetch(url, { ...init, signal: controller.signal }), "it cannot be reached");

  /** @param {ReadableStream<Uint8Array> | null} [stream] */
  async function* chunks(stream = response.body) {
    const reader = stream?.getReader();
    let whole = !reader;
    try {
      while (reader) {
        const part = await alive(some(reader), "it broke off");
        if (part.done) {
          whole = true;
          return;
        }
        yield part.value;
      }
    } finally {
      signal?.removeEventListener("abort", leave);
      if (!whole) {
        close();
        await reader?.cancel().catch(() => {});
      }
    }
  }
  return { response, chunks, close };
}

/**
 * The next part of a stream that is not empty: an empty one is no sign of life.
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 */
async function some(reader) {
  let part = await reader.read();
  while (!part.done && part.value.length === 0) {
    part = await reader.read();
  }
  return part;
}

/**
 * A text of at most `most` bytes; `null` where it is longer.
 * @param {Connection} connection
 * @param {number} most
 * @returns {Promise<string | null>}
 */
export async function textOf({ chunks }, most) {
  const decoder = new TextDecoder();
  let [text, bytes] = ["", 0];
  for await (const part of chunks()) {
    bytes += part.length;
    if (bytes > most) {
      return null;
    }
    text += decoder.decode(part, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * What a promise brings, or a rejection as soon as the signal is aborted.
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function unless(signal, promise) {
  if (!signal) {
    return promise;
  }
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
    if (signal.aborted) {
      leave();
    }
  });
}

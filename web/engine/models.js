/** Models that a page makes itself, from files that others have published. */

import { FaceStudioError, cancelled, failure } from "./protocol.js";
import { HUB } from "./hub.js";

export { bytesStored, bytesToFetch, elsewhere, modelOf } from "./recipes.js";

/** @import { ConversionProgress } from "./conversion.js" */
/** @import { Dtype, Recipe } from "./recipes.js" */

/**
 * The recipes that the package carries: which published files become which model.
 * @returns {Promise<Recipe[]>}
 */
export async function recipes() {
  const url = new URL("../recipes.json", import.meta.url).href;
  try {
    const response = await fetch(url);
    if (response.ok) {
      return await response.json();
    }
  } catch {
    // Said below.
  }
  throw failure("io", "network", `${url} cannot be read`, "check the connection, then try again");
}

/**
 * Fetches a recipe's files from the hub, converts them, and keeps the model in this browser. What is done stays when it is cancelled or
 * breaks: the same call goes on there.
 *
 * @param {Recipe} recipe
 * @param {object} [options]
 * @param {Dtype} [options.dtype] how weights are stored
 * @param {string} [options.endpoint] the hub, or one like it
 * @param {string | null} [options.token] of an account there that accepted the licence of what is gated
 * @param {(progress: ConversionProgress) => void} [options.onProgress]
 * @param {AbortSignal} [options.signal]
 * @returns {Promise<{ model: string, memory: number, fetched: number }>} the model's address, for `load` or the element; the most bytes
 *   that the converter's memory took; bytes that came over the network
 */
export function make(recipe, { dtype = "q8", endpoint = HUB, token = null, onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const worker = new Worker(new URL("./converter.js", import.meta.url), { type: "module" });
    const end = () => {
      signal?.removeEventListener("abort", leave);
      worker.terminate();
    };
    const leave = () => {
      end();
      reject(signal?.reason ?? cancelled());
    };
    signal?.addEventListener("abort", leave, { once: true });
    worker.addEventListener("error", (event) => {
      end();
      reject(failure("internal", "unexpected", event.message || "the converter could not be started", "reload the page"));
    });
    worker.addEventListener("message", ({ data: { progress, done, failed } }) => {
      if (progress) {
        onProgress?.(progress);
        return;
      }
      end();
      if (done) {
        resolve(done);
      } else {
        reject(new FaceStudioError(failed));
      }
    });
    worker.postMessage({ recipe, dtype, hub: { endpoint: endpoint.replace(/\/+$/, ""), token } });
  });
}

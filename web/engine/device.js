/** Watches the WebGPU devices that wasm opens: wgpu's own handlers end inside wasm, where nobody can be told. */

import { failure } from "./protocol.js";

/** What is awaited for a loss to be told of, in milliseconds: a busy machine delivers it after the errors that it causes. */
const PATIENCE = 2000;

/** Settles when any watched device is lost. @type {Promise<unknown>[]} */
const losses = [];

/** The device that was opened last. @type {any} */
let newest = null;

/** The `GPUDevice` that wasm opened last; null without one. */
export const newestDevice = () => newest;

/** Resolves when a device is lost, or when it is clear that none was: at once where none was opened. */
export async function lossOrNone() {
  await Promise.race([...losses, new Promise((resolve) => setTimeout(resolve, losses.length ? PATIENCE : 0))]);
}

/**
 * Calls `fail` when a device that this worker opens from now on is lost, or out of memory.
 * @param {(error: Error) => void} fail
 */
export function watchDevices(fail) {
  const adapter = /** @type {any} */ (globalThis).GPUAdapter?.prototype;
  if (!adapter) {
    return;
  }
  const { requestDevice } = adapter;
  adapter.requestDevice = async function (/** @type {unknown[]} */ ...options) {
    const device = await requestDevice.apply(this, options);
    newest = device;
    const lost = device.lost.then((/** @type {{ reason: string, message: string }} */ { reason, message }) => {
      const why = message || reason || "the browser does not say why";
      fail(
        failure(
          "device",
          "device-lost",
          `the graphics device was lost: ${why}`,
          "try again: the model is opened anew; if it comes back, use the backend “cpu”",
        ),
      );
    });
    losses.push(lost);
    device.addEventListener("uncapturederror", (/** @type {any} */ { error }) => {
      if (error instanceof /** @type {any} */ (globalThis).GPUOutOfMemoryError) {
        fail(
          failure(
            "device",
            "out-of-memory",
            `the graphics device is out of memory: ${error.message}`,
            "ask for a smaller picture or fewer people, close other tabs, or use a smaller model",
          ),
        );
      }
    });
    return device;
  };
}

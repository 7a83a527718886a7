/** What is left to say after wasm has trapped: its memory is in an unknown state, but its last words may be read. */

import { failure, stackOf } from "./protocol.js";

/** @import { Wasm } from "./module.js" */

/**
 * Why a module trapped; which one it was is not known.
 * @param {Wasm[]} modules those that can be called
 * @param {unknown} thrown
 */
export function trapped(modules, thrown) {
  const exhausted = outOfMemory(modules, thrown);
  if (exhausted) {
    return exhausted;
  }
  let message = thrown instanceof Error ? thrown.message : String(thrown);
  try {
    message = modules.map((wasm) => wasm.last_panic()).find(Boolean) ?? message;
  } catch {
    // Not even that can be read.
  }
  const crashed = failure("internal", "engine-crashed", message, "try again with a smaller picture; if it comes back, please report it");
  crashed.stack = stackOf(thrown) ?? crashed.stack;
  return crashed;
}

/**
 * Whether an exception means that memory is exhausted.
 * @param {Wasm[]} modules
 * @param {unknown} thrown
 */
export function outOfMemory(modules, thrown) {
  const trap = thrown instanceof WebAssembly.RuntimeError;
  const bytes = trap ? modules.map((wasm) => wasm.failed_allocation()).find((failed) => failed !== undefined) : undefined;
  if (bytes === undefined && !(thrown instanceof RangeError && /alloc|memory/i.test(thrown.message))) {
    return null;
  }
  const message = bytes === undefined ? "the tab is out of memory" : `the tab has no room for ${Math.ceil(bytes / 2 ** 20)} MiB more`;
  return failure("device", "out-of-memory", message, "ask for a smaller picture or fewer people, close other tabs, or use a smaller model");
}

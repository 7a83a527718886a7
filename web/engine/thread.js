/** A thread of the CPU backend: an instance of wasm over the memory of the worker that started it. */

import init, * as wasm from "../wasm-threads/facestudio.js";
import { toFailure } from "./protocol.js";
import { trapped } from "./trap.js";

self.addEventListener(
  "message",
  async ({ data }) => {
    let page;
    try {
      page = new BroadcastChannel(self.name);
      await init(data);
    } catch (thrown) {
      self.postMessage(String(thrown));
      return;
    }
    self.postMessage(null);
    try {
      wasm.run_thread();
    } catch (thrown) {
      // The worker waits for this thread, and hears nothing: the page ends both.
      page.postMessage(toFailure(trapped([wasm], thrown)));
    }
  },
  { once: true },
);

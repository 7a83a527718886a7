/** The converter's worker: one conversion, then it ends. Ending it earlier cancels; what is done stays. */

import { convert } from "./conversion.js";
import { Broken, connect } from "./network.js";
import { failure, toFailure } from "./protocol.js";

const CONVERTER = new URL("../wasm-convert/facestudio_convert.wasm", import.meta.url).href;

self.addEventListener("message", async ({ data: { recipe, dtype, hub } }) => {
  const { signal } = new AbortController();
  try {
    const { response } = await connect(CONVERTER, {}, { signal });
    const converter = await WebAssembly.compileStreaming(response);
    let told = 0;
    const report = (/** @type {unknown} */ progress) => {
      if (performance.now() - told > 50) {
        told = performance.now();
        self.postMessage({ progress });
      }
    };
    self.postMessage({ done: await convert(recipe, dtype, hub, converter, { report, signal }) });
  } catch (thrown) {
    const lost = thrown instanceof Broken;
    self.postMessage({
      failed: toFailure(lost ? failure("io", "network", thrown.message, "check the connection, then try again") : thrown),
    });
  }
});

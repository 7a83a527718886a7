/** What was measured of this machine's graphics adapter: once for each adapter and release, then kept. */

import { RELEASE } from "./protocol.js";
import { measured, putMeasured } from "./store.js";

/**
 * Tells a device which tiles its products are fastest with; measures them where this release has not yet.
 *
 * Nothing but speed depends on it, so that what cannot be kept, or was damaged, is measured again.
 * @param {import("../wasm/facestudio.js").Engine} device on WebGPU
 * @param {string} adapter its name
 */
export async function tune(device, adapter) {
  const key = `${adapter} ${RELEASE}`;
  const known = await measured();
  if (Array.isArray(known[key])) {
    try {
      device.set_tiles(Uint32Array.from(known[key]));
      return;
    } catch (error) {
      // Damaged, or of another build of this release. A trap is no such answer.
      if (error instanceof WebAssembly.RuntimeError) {
        throw error;
      }
    }
  }
  const tiles = await device.measure_tiles();
  if (tiles) {
    device.set_tiles(tiles);
    await putMeasured({ ...known, [key]: [...tiles] });
  }
}

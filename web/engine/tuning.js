/** What was found out about this machine's graphics adapter: once for each adapter and release, then kept. */

import { failure, RELEASE } from "./protocol.js";

/** @import { Abilities, Choice, GenerateRequest, Notice } from "./protocol.js" */
/** @import { Engine } from "../wasm/facestudio.js" */

/**
 * @typedef {object} Known
 * @property {string[]} wrong kernels that compute wrongly there, by the engine's names
 * @property {number[]} tiles that products are fastest with
 * @property {number} rate multiply-adds a millisecond
 */

/** What stands for all of them: burn's own operations are wrong too. */
const ALL = "burn";

/**
 * Holds a device to what was found out about its adapter, which is found out where this release has not yet: first which kernels
 * compute rightly, then how fast. What cannot be kept, or was damaged, is found out again.
 * @param {Engine} device on WebGPU
 * @param {string} adapter its name
 * @param {{ measured: () => Promise<Record<string, unknown>>, putMeasured: (known: Record<string, unknown>) => Promise<void> }} store
 * @param {boolean} [software] whether the adapter is emulated: it is the same for everybody, and needs a minute to prove itself
 * @returns {Promise<string[]>} the kernels that are left out
 */
export async function tune(device, adapter, { measured, putMeasured }, software = false) {
  const key = `${adapter} ${RELEASE}`;
  const all = await measured();
  const known = /** @type {Partial<Known> | null | undefined} */ (all[key]);
  if (isKnown(known)) {
    try {
      obey(device, known);
      return known.wrong;
    } catch (error) {
      // Of another build of this release. A trap is no such answer.
      if (error instanceof WebAssembly.RuntimeError) {
        throw error;
      }
    }
  }
  const wrong = software ? [] : await device.prove();
  if (wrong.includes(ALL)) {
    return wrong;
  }
  const [tiles, rate] = [await device.measure_tiles(), await device.measure_rate()];
  if (tiles && rate) {
    const found = { wrong, tiles: [...tiles], rate };
    obey(device, found);
    await putMeasured({ ...all, [key]: found });
  } else {
    device.leave_out(wrong);
  }
  return wrong;
}

/** @param {Partial<Known> | null | undefined} known @returns {known is Known} */
function isKnown(known) {
  return Array.isArray(known?.wrong) && !known.wrong.includes(ALL) && Array.isArray(known.tiles) && typeof known.rate === "number";
}

/** @param {Engine} device @param {Known} known */
function obey(device, { wrong, tiles, rate }) {
  device.set_tiles(Uint32Array.from(tiles));
  device.set_rate(rate);
  device.leave_out(wrong);
}

/**
 * Finds out what of a device can be trusted, and holds it to that. Where nothing can, `choice` becomes the CPU, unless WebGPU was asked
 * for by its name.
 * @param {Engine} device
 * @param {Choice} choice
 * @param {Parameters<typeof tune>[2]} store
 * @returns {Promise<Notice[]>} what to tell
 */
export async function trust(device, choice, store) {
  const { adapter, software } = choice;
  const wrong = await tune(device, adapter, store, software);
  if (wrong.length === 0) {
    return [];
  }
  const kernels = wrong.join(", ");
  const message = `FaceStudio ${RELEASE}: ${adapter} computes wrongly, and is passed over for: ${kernels}`;
  if (wrong.includes(ALL)) {
    if (choice.why === "asked") {
      throw failure(
        "device",
        "webgpu-wrong",
        message,
        "update the graphics driver, or use the backend “auto” or “cpu”; please report this line",
      );
    }
    Object.assign(choice, { backend: "cpu", why: "webgpu-wrong", reason: message });
  }
  const values = { adapter, kernels, release: RELEASE };
  return [{ code: "kernels-wrong", message, remedy: "pictures are right, and take longer; please report this line", values }];
}

/** Bytes of a buffer that is asked for: all that every adapter allows. */
const PIECE = 256 * 2 ** 20;
/** WebGPU's `GPUBufferUsage.STORAGE`. */
const STORAGE = 0x80;

/**
 * Asks a device for memory before it is needed, and gives it back: where a driver has none, what fails later takes the tab along.
 * @param {any} device a `GPUDevice`
 * @param {number} bytes
 * @param {string} what they are for
 */
export async function askForRoom(device, bytes, what) {
  if (!device || !(bytes > 0)) {
    return;
  }
  device.pushErrorScope("out-of-memory");
  const buffers = [];
  const piece = Math.min(PIECE, device.limits.maxBufferSize);
  for (let left = Math.ceil(bytes / 4) * 4; left > 0; left -= piece) {
    buffers.push(device.createBuffer({ size: Math.min(piece, left), usage: STORAGE }));
  }
  const error = await device.popErrorScope();
  buffers.forEach((buffer) => buffer.destroy());
  if (error) {
    const message = `the graphics device has no room for ${what}: ${Math.ceil(bytes / 2 ** 20)} MiB`;
    throw failure("device", "device-memory", message, "close other tabs and programs, ask for a smaller picture, or use the backend “cpu”");
  }
}

/**
 * Asks a device for the memory of each picture that is larger than those before. What a picture takes most of is the widest map that the
 * autoencoder decodes through at full size, three of which are there at a time: a layer's input, normalised, and its output.
 * @param {any} device a `GPUDevice`
 * @param {Blob | undefined} config the autoencoder's, if the model has one
 * @returns {Promise<(request: GenerateRequest, usual: Abilities) => Promise<void>>}
 */
export async function pictures(device, config) {
  const { block_out_channels: kl, decoder_block_out_channels: dc } = config ? JSON.parse(await config.text()) : {};
  // AutoencoderKL upsamples before its last block has fewer channels, AutoencoderDC while it does.
  const each = 3 * 4 * Number(kl?.[1] ?? kl?.[0] ?? dc?.[0] ?? 0);
  let found = 0;
  return async (request, usual) => {
    const bytes = each * Number(request.width ?? usual.width ?? 0) * Number(request.height ?? usual.height ?? 0);
    if (bytes > found) {
      await askForRoom(device, bytes - found, "the picture");
      found = bytes;
    }
  };
}

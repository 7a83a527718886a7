/** Encoded pictures: shown, read from files, from the clipboard and from drops. */

import { MAX_IMAGE_BYTES, failure } from "../engine/protocol.js";

/** @import { Bytes } from "../engine/protocol.js" */

/** URLs live as long as the bytes that they show. @type {WeakMap<Bytes, string>} */
const urls = new WeakMap();
const released = new FinalizationRegistry((/** @type {string} */ url) => URL.revokeObjectURL(url));

/**
 * A URL for an encoded picture; the same one for the same bytes.
 * @param {Bytes} bytes
 * @returns {string}
 */
export function urlOf(bytes) {
  let url = urls.get(bytes);
  if (!url) {
    url = URL.createObjectURL(new Blob([/** @type {BlobPart} */ (bytes)], { type: "image/png" }));
    urls.set(bytes, url);
    released.register(bytes, url);
  }
  return url;
}

/**
 * Shows an encoded picture.
 * @param {HTMLImageElement} image
 * @param {Bytes} bytes
 */
export function show(image, bytes) {
  image.src = urlOf(bytes);
}

/**
 * The bytes of a file; refuses one that is too large to be read.
 * @param {File} file
 * @returns {Promise<Uint8Array>}
 */
export async function readFile(file) {
  if (file.size > MAX_IMAGE_BYTES) {
    throw failure(
      "input",
      "image-too-large",
      `${file.name} has ${Math.round(file.size / 2 ** 20)} MiB`,
      `choose a picture of at most ${MAX_IMAGE_BYTES / 2 ** 20} MiB`,
    );
  }
  return new Uint8Array(await file.arrayBuffer());
}

/**
 * A canvas as the bytes of a PNG.
 * @param {HTMLCanvasElement} canvas
 * @returns {Promise<Uint8Array>}
 */
export function toPng(canvas) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => {
      if (blob) {
        blob.arrayBuffer().then((buffer) => resolve(new Uint8Array(buffer)), reject);
      } else {
        reject(failure("internal", "png-encode", "the browser cannot encode a picture", "choose a smaller one"));
      }
    }, "image/png");
  });
}

/** Whether the browser takes pictures into its clipboard. */
export function hasClipboard() {
  return "clipboard" in navigator && "ClipboardItem" in globalThis;
}

/** @param {Uint8Array} png */
export async function copyPicture(png) {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([/** @type {BlobPart} */ (png)], { type: "image/png" }) })]);
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw failure(
      "io",
      "clipboard",
      `the picture cannot be copied: ${why}`,
      "allow the page to use the clipboard, or download the picture",
    );
  }
}

/**
 * Hands a file to the browser's downloads.
 * @param {Blob} file
 * @param {string} name
 */
export function save(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

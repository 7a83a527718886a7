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
 * The picture files in what was dropped or pasted.
 * @param {DataTransfer | null} data
 * @returns {File[]}
 */
export function pictureFiles(data) {
  return [...(data?.files ?? [])].filter((file) => file.type === "" || file.type.startsWith("image/"));
}

/**
 * Lets files be dropped on an element, which has the class `over` meanwhile.
 * @param {HTMLElement} target
 * @param {(files: File[]) => void} take
 */
export function acceptDrops(target, take) {
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("over");
  });
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    target.classList.remove("over");
    take(pictureFiles(event.dataTransfer));
  });
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

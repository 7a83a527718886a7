/** Takes a photo with the device's camera. Loaded when somebody wants that. */

import { failure } from "../engine/protocol.js";
import { openDialog } from "./dialog.js";
import { drawing } from "./drawings.js";
import { toPng } from "./pictures.js";

/** @import { Builder } from "./builder.js" */

/**
 * @param {Builder} builder
 * @param {ParentNode} root
 * @returns {Promise<Uint8Array | null>} a PNG; null if the dialog was closed
 */
export async function takePhoto(builder, root) {
  const h = builder.h.bind(builder);
  const stream = await openCamera();
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  if (!root.isConnected) {
    // The element was removed while the browser asked.
    stop();
    return null;
  }
  const video = h("video", { muted: true, autoplay: true, playsInline: true, label: "camera.view" });
  video.srcObject = stream;
  return new Promise((resolve, reject) => {
    /** @type {Promise<Uint8Array> | null} */
    let photo = null;
    const take = () => {
      const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d")?.drawImage(video, 0, 0);
      photo = toPng(canvas);
      close();
    };
    const button = h(
      "button",
      { type: "button", class: "primary", disabled: true, id: "shutter", on: { click: take } },
      drawing("M2 5h3l1-2h4l1 2h3v8H2zM8 6.5a2.5 2.5 0 1 0 .01 0"),
      h("span", { text: "camera.take" }),
    );
    video.addEventListener("loadeddata", () => {
      button.disabled = false;
    });
    const closed = () => {
      stop();
      (photo ?? Promise.resolve(null)).then(resolve, reject);
    };
    const close = openDialog(
      builder,
      root,
      { title: "camera.title", className: "narrow", closed },
      video,
      h("p", { class: "hint", text: "camera.hint" }),
      h("div", { class: "dialog-actions" }, button),
    );
  });
}

/** @returns {Promise<MediaStream>} */
async function openCamera() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch (error) {
    throw failure(
      "device",
      "camera-unavailable",
      `the camera cannot be used: ${error instanceof Error ? error.message : String(error)}`,
      "allow the page to use the camera, or choose a photo instead",
    );
  }
}

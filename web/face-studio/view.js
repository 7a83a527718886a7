/** The picture as large as the window takes it. Loaded when it is needed. */

import { openDialog } from "./dialog.js";
import { show } from "./pictures.js";

/** @import { Builder, Said } from "./builder.js" */

/**
 * @param {Builder} builder
 * @param {ParentNode} root
 * @param {Uint8Array} png
 * @param {Said} alt
 */
export function viewLarge(builder, root, png, alt) {
  const image = builder.h("img", { class: "large-picture", alt });
  show(image, png);
  openDialog(builder, root, { title: "view.title", className: "view-large" }, image);
}

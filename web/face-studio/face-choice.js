/** Several faces in one photo: which one is meant. */

import { openDialog } from "./dialog.js";
import { show } from "./pictures.js";

/** @import { Face } from "../engine/protocol.js" */
/** @import { Builder } from "./builder.js" */

/**
 * @param {Builder} builder
 * @param {ParentNode} root
 * @param {Face[]} faces
 * @returns {Promise<Face | null>} null if none was chosen
 */
export function chooseFace(builder, root, faces) {
  const h = builder.h.bind(builder);
  return new Promise((resolve) => {
    /** @type {Face | null} */
    let chosen = null;
    const buttons = faces.map((face, i) => {
      const image = h("img", { attributes: { alt: "" } });
      show(image, face.png);
      const choose = () => {
        chosen = face;
        close();
      };
      return h("button", { type: "button", class: "tile", label: ["faces.one", { n: i + 1 }], on: { click: choose } }, image);
    });
    const close = openDialog(
      builder,
      root,
      { title: "faces.title", className: "narrow", closed: () => resolve(chosen) },
      h("p", { class: "hint", text: ["faces.hint", { n: faces.length }] }),
      h("div", { class: "tiles large" }, ...buttons),
    );
  });
}

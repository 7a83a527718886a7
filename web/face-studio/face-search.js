/** A face that the finder does not see in a photo as it is: looked for in parts of it, and then shown by hand. Loaded when it is needed. */

import { BoxCanvas } from "./box-canvas.js";
import { openDialog } from "./dialog.js";
import { toPng, urlOf } from "./pictures.js";

/** @import { Face, Landmarks } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */

/** @typedef {(bytes: Uint8Array) => Promise<Face[]>} Find */

/** Longest side of a part that is looked at, in pixels. */
const SIDE = 640;

/** Room around a box that was drawn, in parts of its sides. */
const ROOM = 0.35;

/** Where eyes, nose and mouth corners are in a box round a face that looks straight ahead, in parts of its sides. */
const USUAL = /** @type {Landmarks} */ ([
  [0.31, 0.42],
  [0.69, 0.42],
  [0.5, 0.6],
  [0.35, 0.79],
  [0.65, 0.79],
]);

/**
 * The parts of a photo that are looked at, in parts of its sides: it with room around, for a face that fills it, then halves that
 * overlap, for one that is small.
 */
const PARTS = [
  { x: -0.5, y: -0.5, width: 2, height: 2 },
  ...[0, 0.25, 0.5].flatMap((y) => [0, 0.25, 0.5].map((x) => ({ x, y, width: 0.5, height: 0.5 }))),
];

/**
 * A part of a picture as a PNG.
 * @param {ImageBitmap} bitmap
 * @param {{ x: number, y: number, width: number, height: number }} part in parts of the picture's sides
 */
async function cut(bitmap, { x, y, width, height }) {
  const [across, down] = [width * bitmap.width, height * bitmap.height];
  const scale = SIDE / Math.max(across, down);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(across * scale));
  canvas.height = Math.max(1, Math.round(down * scale));
  const context = canvas.getContext("2d");
  if (context) {
    context.fillStyle = "#808080";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, -x * bitmap.width * scale, -y * bitmap.height * scale, bitmap.width * scale, bitmap.height * scale);
  }
  return { png: await toPng(canvas), width: canvas.width, height: canvas.height };
}

/**
 * The faces in the parts of a photo, each once; none that a part's border cuts.
 * @param {Uint8Array} photo
 * @param {Find} find
 * @returns {Promise<Face[]>}
 */
export async function searchParts(photo, find) {
  const bitmap = await createImageBitmap(new Blob([/** @type {BlobPart} */ (photo)]));
  /** Their middles in parts of the photo's sides. @type {{ face: Face, x: number, y: number, size: number }[]} */
  const found = [];
  for (const part of PARTS) {
    const { png, width, height } = await cut(bitmap, part);
    for (const face of await find(png)) {
      const [left, top, right, bottom] = face.box;
      const whole = left > 1 && top > 1 && right < width - 1 && bottom < height - 1;
      const x = part.x + (part.width * (left + right)) / (2 * width);
      const y = part.y + (part.height * (top + bottom)) / (2 * height);
      const size = Math.max((part.width * (right - left)) / width, (part.height * (bottom - top)) / height);
      if (whole && !found.some((other) => Math.hypot(other.x - x, other.y - y) < Math.max(other.size, size) / 2)) {
        found.push({ face, x, y, size });
      }
    }
  }
  bitmap.close();
  return found.sort((a, b) => b.size - a.size).map(({ face }) => face);
}

/**
 * Has a box drawn round the face.
 * @param {Builder} builder
 * @param {ParentNode} root
 * @param {Uint8Array} photo
 * @param {Find} find
 * @param {Said} why the finder may not see it
 * @returns {Promise<{ png: Uint8Array, landmarks: Landmarks } | null>} null where none was drawn
 */
export async function drawByHand(builder, root, photo, find, why) {
  const h = builder.h.bind(builder);
  const bitmap = await createImageBitmap(new Blob([/** @type {BlobPart} */ (photo)]));
  const canvas = new BoxCanvas(builder, () => {});
  canvas.set([{ x: 0.3, y: 0.2, width: 0.4, height: 0.5 }]);
  const image = h("img", { src: urlOf(photo), attributes: { alt: "" } });
  const plane = h("div", { class: "plane photo" }, image, canvas.node);
  plane.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
  const drawn = await new Promise((resolve) => {
    /** @type {import("./boxes.js").Box | null} */
    let box = null;
    const take = () => {
      box = canvas.boxes[0] ?? null;
      close();
    };
    const close = openDialog(
      builder,
      root,
      { title: "byhand.title", closed: () => resolve(box) },
      h("p", { text: why }),
      h("p", { class: "hint", id: "box-keys-photo", text: "byhand.hint" }),
      plane,
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { type: "button", class: "primary", id: "byhand-use", text: "byhand.use", on: { click: take } }),
      ),
    );
  });
  if (!drawn) {
    return null;
  }
  const { x, y, width, height } = drawn;
  const around = { x: x - ROOM * width, y: y - ROOM * height, width: (1 + 2 * ROOM) * width, height: (1 + 2 * ROOM) * height };
  const part = await cut(bitmap, around);
  bitmap.close();
  // Looked at alone it may be found after all, with its own places.
  const [face] = await find(part.png);
  if (face) {
    return { png: face.png, landmarks: face.landmarks };
  }
  const place = (/** @type {number} */ at, /** @type {number} */ side) => ((ROOM + at) / (1 + 2 * ROOM)) * side;
  return { png: part.png, landmarks: USUAL.map(([across, down]) => [place(across, part.width), place(down, part.height)]) };
}

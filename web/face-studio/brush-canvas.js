/** One mask a person, painted with mouse, touch or keyboard. */

import { toPng } from "./pictures.js";

/** @import { Bytes } from "../engine/protocol.js" */
/** @import { Builder } from "./builder.js" */

/** Side of a mask in pixels; the model scales it to its latents. */
const SIDE = 256;
/** How far a key press moves the brush, in pixels. */
const STEP = 8;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

export class BrushCanvas {
  /** @type {HTMLElement} */
  node;
  /** Whose mask is painted. */
  person = 0;
  /** Diameter in pixels of the mask. */
  size = 48;
  /** Whether the brush takes away. */
  erasing = false;
  #builder;
  #change;
  #cursor;
  /** @type {HTMLCanvasElement[]} */
  #masks = [];
  /** Where the keyboard's brush is. */
  #at = [SIDE / 2, SIDE / 2];

  /**
   * @param {Builder} builder
   * @param {() => void} change after every stroke
   */
  constructor(builder, change) {
    this.#builder = builder;
    this.#change = change;
    const h = builder.h.bind(builder);
    this.#cursor = h("span", { class: "brush-cursor", hidden: true });
    this.node = h(
      "div",
      { class: "brush", tabIndex: 0, label: "layout.paint", attributes: { role: "application", "aria-describedby": "brush-keys" } },
      this.#cursor,
    );
    this.node.addEventListener("pointerdown", (event) => this.#stroke(event));
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.node.addEventListener("blur", () => {
      this.#cursor.hidden = true;
    });
  }

  /** @param {number} count of people */
  setCount(count) {
    while (this.#masks.length > count) {
      this.#masks.pop()?.remove();
    }
    while (this.#masks.length < count) {
      const mask = this.#builder.h("canvas", { class: `mask person-${this.#masks.length}`, width: SIDE, height: SIDE });
      this.#masks.push(mask);
      this.node.append(mask);
    }
    this.person = Math.min(this.person, Math.max(count - 1, 0));
  }

  /** Empties the mask of the person who is painted. */
  clear() {
    this.#context(this.person)?.clearRect(0, 0, SIDE, SIDE);
    this.#change();
  }

  /** The people without a single painted pixel, counted from 0. */
  get empty() {
    return this.#masks.flatMap((_, i) => {
      const pixels = this.#context(i)?.getImageData(0, 0, SIDE, SIDE).data ?? [];
      return pixels.some((value) => value > 0) ? [] : [i];
    });
  }

  /**
   * Paints masks as {@link masks} gave them.
   * @param {Bytes[]} pngs
   */
  async write(pngs) {
    for (const [i, mask] of this.#masks.entries()) {
      const context = this.#context(i);
      const png = pngs[i];
      if (!context || !png) {
        continue;
      }
      const bitmap = await createImageBitmap(new Blob([/** @type {BlobPart} */ (png)]));
      context.globalCompositeOperation = "source-over";
      context.clearRect(0, 0, SIDE, SIDE);
      context.drawImage(bitmap, 0, 0, SIDE, SIDE);
      bitmap.close();
      const picture = context.getImageData(0, 0, SIDE, SIDE);
      const [red = 0, green = 0, blue = 0] = (getComputedStyle(mask).color.match(/[\d.]+/g) ?? []).map(Number);
      for (let at = 0; at < picture.data.length; at += 4) {
        picture.data.set([red, green, blue, picture.data[at] ?? 0], at);
      }
      context.putImageData(picture, 0, 0);
    }
  }

  /**
   * Every mask as a PNG, white on black; of the picture's proportions, as the pipeline wants them.
   * @param {number} [width]
   * @param {number} [height]
   * @returns {Promise<Uint8Array[]>}
   */
  masks(width = SIDE, height = SIDE) {
    return Promise.all(
      this.#masks.map((mask) => {
        const canvas = this.#builder.h("canvas", { width, height });
        const context = canvas.getContext("2d");
        if (context) {
          context.drawImage(mask, 0, 0, width, height);
          // The masks are painted in the people's colours; only where they are counts.
          context.globalCompositeOperation = "source-in";
          context.fillStyle = "#ffffff";
          context.fillRect(0, 0, width, height);
          context.globalCompositeOperation = "destination-over";
          context.fillStyle = "#000000";
          context.fillRect(0, 0, width, height);
        }
        return toPng(canvas);
      }),
    );
  }

  /** @param {number} i */
  #context(i) {
    return this.#masks[i]?.getContext("2d", { willReadFrequently: true });
  }

  /**
   * @param {number[]} from
   * @param {number[]} to
   */
  #paint([x0 = 0, y0 = 0], [x1 = 0, y1 = 0]) {
    const context = this.#context(this.person);
    if (context) {
      // Resolved: a canvas knows no `light-dark()`.
      const { color } = getComputedStyle(context.canvas);
      context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
      context.strokeStyle = color;
      context.lineWidth = this.size;
      context.lineCap = "round";
      context.beginPath();
      context.moveTo(x0, y0);
      // A line of no length is not drawn: a dot is a very short one.
      context.lineTo(x1 + 0.01, y1);
      context.stroke();
    }
  }

  /** @param {PointerEvent} event */
  #stroke(event) {
    if (event.button !== 0) {
      return;
    }
    event.preventDefault();
    this.node.focus();
    this.node.setPointerCapture(event.pointerId);
    const { left, top, width, height } = this.node.getBoundingClientRect();
    const place = (/** @type {PointerEvent} */ at) => [((at.clientX - left) / width) * SIDE, ((at.clientY - top) / height) * SIDE];
    let last = place(event);
    this.#paint(last, last);
    const move = (/** @type {PointerEvent} */ at) => {
      const next = place(at);
      this.#paint(last, next);
      last = next;
    };
    this.node.addEventListener("pointermove", move);
    const end = () => {
      this.node.removeEventListener("pointermove", move);
      this.#change();
    };
    this.node.addEventListener("lostpointercapture", end, { once: true });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const arrow = ARROWS[event.key];
    if (arrow) {
      event.preventDefault();
      this.#at = this.#at.map((at, axis) => Math.min(Math.max(at + (arrow[axis] ?? 0), 0), SIDE));
    } else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      this.#paint(this.#at, this.#at);
      this.#change();
    } else {
      return;
    }
    const [x = 0, y = 0] = this.#at;
    this.#cursor.hidden = false;
    this.#cursor.style.left = `${(100 * x) / SIDE}%`;
    this.#cursor.style.top = `${(100 * y) / SIDE}%`;
    this.#cursor.style.width = `${(100 * this.size) / SIDE}%`;
  }
}

/** Boxes that mouse, touch and keyboard move and resize. */

import { columns, moved, resized } from "./boxes.js";

/** @import { Builder } from "./builder.js" */
/** @import { Box } from "./boxes.js" */

/** How far a key press moves. */
const STEP = 0.02;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

export class BoxCanvas {
  /** @type {Box[]} */
  boxes = [];
  /** @type {HTMLElement} */
  node;
  #builder;
  #change;

  /**
   * @param {Builder} builder
   * @param {() => void} change after every change
   */
  constructor(builder, change) {
    this.#builder = builder;
    this.#change = change;
    this.node = builder.h("div", { class: "boxes" });
  }

  /** @param {number} count of people; boxes that are there keep their place as long as the count does */
  setCount(count) {
    if (count !== this.boxes.length) {
      this.set(columns(count));
    }
  }

  /** @param {Box[]} boxes */
  set(boxes) {
    this.boxes = boxes;
    this.node.replaceChildren(...boxes.map((_, i) => this.#box(i)));
  }

  /** @param {number} i */
  #box(i) {
    const h = this.#builder.h.bind(this.#builder);
    const node = h(
      "div",
      { class: `box person-${i}`, tabIndex: 0, attributes: { role: "button", "aria-describedby": "box-keys" } },
      h("span", { class: "box-name", text: ["people.person", { n: i + 1 }] }),
      ...["nw", "ne", "sw", "se"].map((corner) => h("span", { class: `corner ${corner}`, attributes: { "data-corner": corner } })),
    );
    this.#place(node, i);
    node.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      const box = this.boxes[i];
      if (arrow && box) {
        event.preventDefault();
        this.boxes[i] = event.shiftKey ? resized(box, "se", ...arrow) : moved(box, ...arrow);
        this.#place(node, i);
        this.#change();
      }
    });
    node.addEventListener("pointerdown", (event) => this.#drag(event, node, i));
    return node;
  }

  /**
   * @param {PointerEvent} event
   * @param {HTMLElement} node
   * @param {number} i
   */
  #drag(event, node, i) {
    const start = this.boxes[i];
    if (!start || event.button !== 0) {
      return;
    }
    event.preventDefault();
    node.focus();
    node.setPointerCapture(event.pointerId);
    const corner = event.target instanceof HTMLElement ? event.target.dataset.corner : undefined;
    const { width, height } = this.node.getBoundingClientRect();
    const move = (/** @type {PointerEvent} */ at) => {
      const [dx, dy] = [(at.clientX - event.clientX) / width, (at.clientY - event.clientY) / height];
      this.boxes[i] = corner ? resized(start, corner, dx, dy) : moved(start, dx, dy);
      this.#place(node, i);
      this.#change();
    };
    node.addEventListener("pointermove", move);
    node.addEventListener("lostpointercapture", () => node.removeEventListener("pointermove", move), { once: true });
  }

  /**
   * @param {HTMLElement} node
   * @param {number} i
   */
  #place(node, i) {
    const box = this.boxes[i];
    if (box) {
      const percent = (/** @type {number} */ part) => Math.round(part * 100);
      for (const [name, part] of /** @type {const} */ ([
        ["left", box.x],
        ["top", box.y],
        ["width", box.width],
        ["height", box.height],
      ])) {
        node.style[name] = `${part * 100}%`;
      }
      const values = { n: i + 1, x: percent(box.x), y: percent(box.y), width: percent(box.width), height: percent(box.height) };
      this.#builder.say(node, { label: ["layout.box", values] });
    }
  }
}

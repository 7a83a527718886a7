/** A modal dialog with a heading and a way out. */

/** @import { Builder, Said } from "./builder.js" */

/**
 * Shows `content` in a modal dialog until it is closed. The returned function closes it; so do Escape and its button.
 *
 * @param {Builder} builder
 * @param {ParentNode} root where the dialog lives while it is open
 * @param {{ title: Said, className?: string, closed?: () => void }} options
 * @param {(Node | null)[]} content
 * @returns {() => void}
 */
export function openDialog(builder, root, { title, className = "", closed }, ...content) {
  const { h } = builder;
  const make = h.bind(builder);
  const close = () => dialog.close();
  const dialog = make(
    "dialog",
    { class: `dialog ${className}`, part: "dialog", attributes: { "aria-labelledby": "dialog-title" } },
    make(
      "div",
      { class: "dialog-head" },
      make("h2", { id: "dialog-title", text: title }),
      make("button", { type: "button", class: "icon close", label: "close", on: { click: close } }, cross()),
    ),
    ...content.filter((node) => node !== null),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed?.();
  });
  // A click on the backdrop hits the dialog itself.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) {
      close();
    }
  });
  root.append(dialog);
  dialog.showModal();
  return close;
}

/** The mark of buttons that close or remove. */
export function cross() {
  return drawing("M4 4 12 12M12 4 4 12");
}

/**
 * A line drawing of 16 × 16 units, silent to screen readers.
 * @param {string} path
 */
export function drawing(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("drawing");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

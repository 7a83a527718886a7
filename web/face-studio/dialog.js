/** A modal dialog with a heading and a way out. */

import { cross } from "./drawings.js";
import { dressDialogs } from "./styles.dialogs.js";

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
  dressDialogs(root);
  root.append(dialog);
  dialog.showModal();
  return close;
}

/** Keeps the keyboard's place when a part of the interface is built again. */

/**
 * Runs `build`; what had the focus below `root` has it again afterwards, found by its `data-key`.
 * @param {HTMLElement} root
 * @param {() => void} build
 */
export function keepFocus(root, build) {
  const shadow = /** @type {Document | ShadowRoot} */ (root.getRootNode());
  const focused = shadow.activeElement;
  const key = focused instanceof HTMLElement && root.contains(focused) ? focused.dataset.key : undefined;
  build();
  if (key) {
    const again = root.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (again instanceof HTMLElement) {
      again.focus();
    }
  }
}

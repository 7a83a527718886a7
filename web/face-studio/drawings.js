/** Small line drawings of buttons. */

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

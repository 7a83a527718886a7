/** Files, pictures of other pages and addresses that are dropped or pasted anywhere on the studio: none of them leads the page away. */

import { failure } from "../engine/protocol.js";

/** @typedef {(files: File[]) => void} Take */

/** What takes the files that are dropped on an element. @type {WeakMap<EventTarget, Take>} */
const takers = new WeakMap();

/**
 * Lets files be dropped on an element, which has the class `over` meanwhile.
 * @param {HTMLElement} target
 * @param {Take} take
 */
export function acceptDrops(target, take) {
  takers.set(target, take);
  target.addEventListener("dragover", () => target.classList.add("over"));
  for (const type of ["dragleave", "drop"]) {
    target.addEventListener(type, () => target.classList.remove("over"));
  }
}

/**
 * Takes all that is dropped on the studio.
 * @param {HTMLElement} studio
 * @param {(data: DataTransfer, take: Take | undefined) => void} bring `take` is the part's that it was dropped on
 */
export function takeDrops(studio, bring) {
  studio.addEventListener("dragover", (event) => event.preventDefault());
  studio.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer) {
      bring(
        event.dataTransfer,
        event
          .composedPath()
          .map((part) => takers.get(part))
          .find(Boolean),
      );
    }
  });
}

/**
 * The files in what was dropped or pasted: its pictures, or what else there is, which is then refused by its name. The picture behind an
 * address, where there is nothing but that.
 * @param {DataTransfer} data read at once: later it is empty
 * @returns {Promise<File[]>}
 */
export function filesOf(data) {
  const files = [...data.files];
  const pictures = files.filter((file) => file.type === "" || file.type.startsWith("image/"));
  const [url = ""] = data
    .getData("text/uri-list")
    .split(/\r?\n/)
    .filter((line) => line && !line.startsWith("#"));
  if (files.length > 0) {
    return Promise.resolve(pictures.length > 0 ? pictures : files);
  }
  return url ? fetched(url) : Promise.resolve([]);
}

/** @param {string} url */
async function fetched(url) {
  try {
    const response = await fetch(url);
    if (!response.ok) {
      throw failure("io", "drop-url", `the server says ${response.status}`, "");
    }
    return [new File([await response.blob()], url.split(/[/?#]/).findLast(Boolean) ?? "picture")];
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw failure("io", "drop-url", `the picture of that address cannot be fetched: ${why}`, "save the picture, then drop its file");
  }
}

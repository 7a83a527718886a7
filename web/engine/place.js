/** Where the package's scripts lie, and how one of them becomes a worker. */

import { urlOf } from "./arguments.js";
import { failure } from "./protocol.js";

/** Where this script is, as the browser or a bundler tells; a bundler may tell of its own disk. */
const HERE = import.meta.url;

/** The folder with `engine/` and `wasm/`, where the page said so. @type {string | null} */
let base = null;

/**
 * Says where the package's folder is served, for pages whose bundler does not see workers and wasm: copy the package there.
 * Counts for what is started after it.
 * @param {string | URL} url of the folder
 */
export function setBase(url) {
  const folder = typeof url === "string" || url instanceof URL ? urlOf(`${url}`.replace(/\/?$/, "/"), document.baseURI) : null;
  if (!folder || !/^https?:$/.test(folder.protocol)) {
    throw failure(
      "input",
      "base-url",
      "the base is no URL of a folder that is served",
      "give the URL of a copy of the package, such as “/facestudio/”",
    );
  }
  base = folder.href;
}

/** The model folder that is meant where none is named: beside the package's folders, or beside the page where a bundler hides those. */
export function defaultModel() {
  return new URL("models/mini/", base ?? (HERE.startsWith("http") ? new URL("../", HERE) : document.baseURI)).href;
}

/**
 * The URL of a script of the engine, where it must be named: null where it lies beside this one and is of the page's origin.
 * @param {string} name
 */
export function scriptOf(name) {
  if (base) {
    return new URL(`engine/${name}`, base);
  }
  const foreign = HERE.startsWith("http") && new URL(HERE).origin !== location.origin;
  return foreign ? new URL(name, HERE) : null;
}

/**
 * Starts a script. Another origin's may be no worker, but a worker of the page's own may import it.
 * @param {URL} url
 * @param {string} name
 */
export function spawn(url, name) {
  if (url.origin === location.origin) {
    return new Worker(url, { type: "module", name });
  }
  const importing = URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)};`], { type: "text/javascript" }));
  const worker = new Worker(importing, { type: "module", name });
  // It is read by then.
  const free = () => URL.revokeObjectURL(importing);
  worker.addEventListener("message", free, { once: true });
  worker.addEventListener("error", free, { once: true });
  return worker;
}

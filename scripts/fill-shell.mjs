/** Tells pkg/sw.js which files the page consists of, and gives them a version that changes with them. */

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const WEB = fileURLToPath(new URL("../web/", import.meta.url));
const PKG = fileURLToPath(new URL("../pkg/", import.meta.url));

/**
 * What the page loads: no types, no texts, no page for embedders or of measurements, not the worker itself, and not the converter, which
 * needs the network.
 */
const others = ["sw.js", "vite.js", "element.html", "bench.html", "bench.js", "icons/social.jpg"];
const wanted = (/** @type {string} */ path) =>
  /\.(html|css|js|wasm|webmanifest|png|svg|ico)$/.test(path) && !others.includes(path) && !path.startsWith("wasm-convert/");

const files = readdirSync(PKG, { recursive: true, encoding: "utf8" })
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => wanted(path) && statSync(PKG + path).isFile())
  .sort();
const digest = createHash("sha256");
for (const path of files) {
  digest.update(`${path}\0`).update(readFileSync(PKG + path));
}
const release = JSON.parse(readFileSync(`${PKG}package.json`, "utf8")).version;
const shell = { version: `${release}-${digest.digest("hex").slice(0, 12)}`, files: ["./", ...files] };

const source = readFileSync(`${WEB}sw.js`, "utf8");
const filled = source.replace(/^const SHELL = .*;$/m, () => `const SHELL = ${JSON.stringify(shell)};`);
if (filled === source) {
  throw new Error("web/sw.js has no line “const SHELL = …;” to fill in");
}
writeFileSync(`${PKG}sw.js`, filled);

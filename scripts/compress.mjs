/**
 * Packs what pkg/ serves in Brotli and gzip beforehand, beside each file: `facestudio serve` sends those, and so do hosts that look for
 * them (docs/hosting.md). What is packed already is not packed again; they are no part of the npm package.
 */

import { existsSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const PKG = fileURLToPath(new URL("../pkg/", import.meta.url));

/** As the server has it: shorter files gain nothing. */
const LEAST = 1024;

const { BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = constants;
/** @type {[string, (bytes: Buffer) => Buffer][]} */
const PACKERS = [
  [".br", (bytes) => brotliCompressSync(bytes, { params: { [BROTLI_PARAM_LGWIN]: 24, [BROTLI_PARAM_SIZE_HINT]: bytes.length } })],
  [".gz", (bytes) => gzipSync(bytes, { level: 9 })],
];

const paths = readdirSync(PKG, { recursive: true, encoding: "utf8" }).map((path) => PKG + path);
for (const path of paths.filter((path) => /\.(br|gz)$/.test(path) && !existsSync(path.replace(/\.\w+$/, "")))) {
  rmSync(path);
}
for (const path of paths.filter((path) => /\.(css|html|js|json|svg|txt|wasm|webmanifest)$/.test(path))) {
  const { size, mtime } = statSync(path);
  for (const [ending, pack] of size < LEAST ? [] : PACKERS) {
    const packed = path + ending;
    if (!existsSync(packed) || statSync(packed).mtimeMs !== mtime.getTime()) {
      writeFileSync(packed, pack(readFileSync(path)));
      // Of the file's own time: that tells whose packing it is.
      utimesSync(packed, mtime, mtime);
    }
  }
}

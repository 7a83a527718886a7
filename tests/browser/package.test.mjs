/** The npm package: its types, its sizes, its message tables. No browser. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { TABLES, chooseLanguage, lookUp } from "../../web/face-studio/messages.js";
import { ROOT } from "./harness.mjs";

/** Files below a folder with one of the endings, as paths. @param {string} folder @param {string} ending @returns {string[]} */
function files(folder, ending) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile() && entry.name.endsWith(ending)).map((entry) => join(entry.parentPath, entry.name));
}

/** Bytes of files as zlib packs them. @param {string[]} paths */
const gzipped = (paths) => paths.reduce((sum, path) => sum + gzipSync(readFileSync(path), { level: 9 }).length, 0);

test("a strict TypeScript consumer compiles against the package", () => {
  const folder = mkdtempSync(join(tmpdir(), "facestudio-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(`${ROOT}pkg`, join(folder, "node_modules/facestudio"));
    writeFileSync(join(folder, "consumer.ts"), readFileSync(`${ROOT}tests/consumer/consumer.ts`));
    const options = {
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        noEmit: true,
        target: "es2022",
        module: "preserve",
        lib: ["es2023", "dom", "dom.iterable"],
        types: [],
      },
      files: ["consumer.ts"],
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(options));
    const compile = () =>
      execFileSync(process.execPath, [`${ROOT}node_modules/typescript/bin/tsc`, "--project", folder], { encoding: "utf8" });
    assert.equal(compile(), "");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a page's JavaScript is at most 60 KB gzipped, its wasm at most 4.5 MB, or 2.2 MB for the CPU alone", () => {
  // It loads one of the two modules; the other one's JavaScript is smaller.
  const scripts = files(`${ROOT}pkg`, ".js").filter((path) => !path.includes("wasm-threads"));
  for (const name of [
    "engine/client",
    "engine/worker",
    "engine/thread",
    "engine/trap",
    "face-studio/face-studio",
    "wasm/facestudio",
    "sw",
  ]) {
    assert.ok(scripts.includes(`${ROOT}pkg/${name}.js`), `${name}.js is missing`);
  }
  const js = gzipped(scripts);
  const [wasm, threads] = ["wasm", "wasm-threads"].map((folder) => gzipped(files(`${ROOT}pkg/${folder}`, ".wasm")));
  const MB = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(2);
  console.log(`JavaScript ${(js / 1000).toFixed(1)} KB, wasm ${MB(wasm)} MB, with threads ${MB(threads)} MB gzipped`);
  assert.ok(js <= 60_000, `${js} bytes of JavaScript`);
  assert.ok(wasm > 0 && wasm <= 4_500_000, `${wasm} bytes of wasm`);
  assert.ok(threads > 0 && threads <= 2_200_000, `${threads} bytes of wasm with threads`);
});

test("every script of the package finds what it imports, and nothing lies there that nobody reads", () => {
  const scripts = files(`${ROOT}pkg`, ".js").filter((path) => !path.startsWith(`${ROOT}pkg/wasm`));
  const read = new Set(
    ["index", "page", "sw", "engine/client", "engine/worker", "engine/thread", "face-studio/face-studio"].map(
      (name) => `${ROOT}pkg/${name}.js`,
    ),
  );
  for (const path of scripts) {
    for (const [, from = ""] of readFileSync(path, "utf8").matchAll(/(?:from|import) ?\(?["'](\.[^"']+)["']/g)) {
      const found = join(path, "..", from);
      assert.ok(existsSync(found), `${path} imports ${from}`);
      read.add(found);
    }
  }
  assert.deepEqual(
    scripts.filter((path) => !read.has(path)),
    [],
  );
});

test("every language has the same messages, with the same gaps, and none is empty", () => {
  const { en, ...others } = TABLES;
  assert.ok(Object.keys(en).length > 200);
  const gaps = (/** @type {string} */ text) => (text.match(/\{\w+\}/g) ?? []).sort();
  for (const [lang, table] of Object.entries(others)) {
    assert.deepEqual(Object.keys(table).sort(), Object.keys(en).sort(), lang);
    for (const [key, text] of Object.entries(table)) {
      assert.notEqual(text.trim(), "", `${lang} ${key}`);
      assert.deepEqual(gaps(text), gaps(en[key]), `${lang} ${key}`);
    }
  }
});

test("a language is chosen by its code, numbers are written its way, gaps without a value stay", () => {
  assert.equal(chooseLanguage(null, "de-AT"), "de");
  assert.equal(chooseLanguage("en-GB", "de"), "en");
  assert.equal(chooseLanguage("fr", ""), "en");
  assert.equal(chooseLanguage("fr", "DE"), "de");
  assert.match(lookUp("de", "stage.likeness", { value: [0.5, 0.25] }), /0,5 · 0,25/);
  assert.match(lookUp("en", "people.person", {}), /\{n\}/);
});

test("every message is used, and no text stands in the code", () => {
  const code = files(`${ROOT}web/face-studio`, ".js").filter((path) => !/messages\.\w+\.js$/.test(path));
  const text = code.map((path) => readFileSync(path, "utf8")).join("\n");
  const named = new Set([...text.matchAll(/["`]([a-z]+(?:\.[a-z_0-9-]+)?)["`]/g)].map(([, name]) => name));
  // Built names, as `trait.${trait}`: every message of the table counts as used.
  const tables = [...text.matchAll(/`([a-z]+)\.\$\{/g)].map(([, table]) => table);
  const choices = [...text.matchAll(/, "(\w+)", \(value\)/g)].map(([, table]) => table);
  const unused = Object.keys(TABLES.en).filter(
    (key) => !named.has(key) && ![...tables, ...choices].some((table) => key.startsWith(`${table}.`)),
  );
  assert.deepEqual(unused, []);
  const literals = [...text.matchAll(/(?:textContent = |aria-label": |placeholder: |title: )"([^"]* [^"]*)"/g)].map(([, found]) => found);
  assert.deepEqual(literals, []);
});

test("the package carries the licences of all that is in it", () => {
  const { dependencies, files: packed } = JSON.parse(readFileSync(`${ROOT}pkg/package.json`, "utf8"));
  // Tools are the only npm packages.
  assert.equal(dependencies, undefined);
  for (const name of ["LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY-NOTICES.txt"]) {
    assert.ok(packed.includes(name), name);
    assert.deepEqual(readFileSync(`${ROOT}pkg/${name}`), readFileSync(`${ROOT}${name}`), name);
  }
  // It is of this Cargo.lock.
  execFileSync(process.execPath, [`${ROOT}scripts/notices.mjs`, "--check"]);
  const scripts = files(`${ROOT}web`, ".js")
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
  const foreign = [...scripts.matchAll(/^import\b[^;]*?from "([^"]+)"/gm)]
    .map(([, from]) => from)
    .filter((from) => !/^\.{1,2}\//.test(from));
  assert.deepEqual(foreign, []);
});

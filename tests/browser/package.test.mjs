/** The npm package: its types, its sizes, its message tables. No browser. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { LANGUAGES, chooseLanguage, loadLanguage, lookUp } from "../../web/face-studio/messages.js";
import { de } from "../../web/face-studio/messages.de.js";
import { en as first } from "../../web/face-studio/messages.en.js";
import { later } from "../../web/face-studio/messages.later.en.js";
import { ROOT } from "./harness.mjs";

const TABLES = /** @type {Record<string, Record<string, string>>} */ ({ en: { ...first, ...later }, de });

/** Files below a folder with one of the endings, as paths. @param {string} folder @param {string} ending @returns {string[]} */
function files(folder, ending) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile() && entry.name.endsWith(ending)).map((entry) => join(entry.parentPath, entry.name));
}

/** Bytes of files as zlib packs them. @param {string[]} paths */
const gzipped = (paths) => paths.reduce((sum, path) => sum + gzipSync(readFileSync(path), { level: 9 }).length, 0);

/**
 * What strict TypeScript says of a file of tests/consumer that uses the package.
 * @param {string} file
 * @param {string[]} [others] packages of tests/bundlers that it uses too
 */
function compiled(file, others = []) {
  const folder = mkdtempSync(join(tmpdir(), "facestudio-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    // A copy of the declarations: what lies behind a link resolves other packages from there.
    for (const path of files(`${ROOT}pkg`, ".d.ts").concat(`${ROOT}pkg/package.json`)) {
      const copy = join(folder, "node_modules/facestudio", path.slice(`${ROOT}pkg/`.length));
      mkdirSync(join(copy, ".."), { recursive: true });
      writeFileSync(copy, readFileSync(path));
    }
    for (const name of others) {
      mkdirSync(join(folder, "node_modules", name, ".."), { recursive: true });
      symlinkSync(`${ROOT}tests/bundlers/node_modules/${name}`, join(folder, "node_modules", name));
    }
    writeFileSync(join(folder, file), readFileSync(`${ROOT}tests/consumer/${file}`));
    const options = {
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        noEmit: true,
        target: "es2022",
        module: "preserve",
        jsx: "react-jsx",
        lib: ["es2023", "dom", "dom.iterable"],
        types: [],
        skipLibCheck: others.length > 0,
      },
      files: [file],
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(options));
    const tsc = [`${ROOT}node_modules/typescript/bin/tsc`, "--project", folder];
    return spawnSync(process.execPath, tsc, { encoding: "utf8" }).stdout;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("a strict TypeScript consumer compiles against the package", () => {
  assert.equal(compiled("consumer.ts"), "");
});

const frameworks = existsSync(`${ROOT}tests/bundlers/node_modules/vue`);
const skip = frameworks || process.env.BUNDLERS === "required" ? false : "npm ci in tests/bundlers first";

test("React, Vue and Svelte know the element in their templates", { skip }, () => {
  assert.equal(compiled("frameworks.tsx", ["@types/react", "csstype", "react", "svelte", "vue", "@vue"]), "");
});

test("a server may import all of the package, which defines nothing there", async () => {
  const { FaceStudio, setBase } = await import(`${ROOT}pkg/index.js`);
  const { FaceStudioElement } = await import(`${ROOT}pkg/face-studio/face-studio.js`);
  assert.deepEqual([typeof FaceStudio, typeof setBase, typeof FaceStudioElement], ["function", "function", "function"]);
});

test("all that the package exports is there, and what editors read describes the element", () => {
  const { exports, customElements, files: packed } = JSON.parse(readFileSync(`${ROOT}pkg/package.json`, "utf8"));
  const targets = Object.values(exports).flatMap((target) => (typeof target === "string" ? [target] : Object.values(target)));
  for (const target of [...targets, customElements]) {
    assert.ok(existsSync(join(`${ROOT}pkg`, target)), target);
    assert.ok(
      packed.some((/** @type {string} */ path) => target.replace(/^\.\//, "").split("/")[0] === path.split("/")[0]) ||
        target === "./package.json",
      target,
    );
  }
  const { modules } = JSON.parse(readFileSync(`${ROOT}pkg/custom-elements.json`, "utf8"));
  const [element] = modules.flatMap((/** @type {any} */ { declarations = [] }) => declarations).filter((/** @type {any} */ d) => d.tagName);
  const names = (/** @type {any[]} */ list) => list.map(({ name }) => name);
  assert.deepEqual(names(element.attributes).sort(), ["backend", "disabled", "hub", "lang", "model", "name", "preload", "theme"]);
  const source = readFileSync(`${ROOT}web/element.d.ts`, "utf8");
  assert.deepEqual(names(element.events).sort(), [...source.matchAll(/"(facestudio-\w+)": CustomEvent/g)].map(([, name]) => name).sort());
  // Parts and properties are those that the interface has.
  const code = files(`${ROOT}web/face-studio`, ".js")
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
  const parts = new Set([...code.matchAll(/\bpart: "(\w+)"/g)].map(([, name]) => name));
  assert.deepEqual(names(element.cssParts).sort(), [...parts].sort());
  const properties = new Set([...code.matchAll(/var\((--facestudio-[\w-]+)/g)].map(([, name]) => name));
  assert.deepEqual(names(element.cssProperties).sort(), [...properties].sort());
  const shown = readFileSync(`${ROOT}pkg/element.html`, "utf8");
  for (const name of [...names(element.attributes), ...names(element.events), ...names(element.slots)]) {
    assert.ok(shown.includes(`<code>${name}</code>`), name);
  }
});

/** Scripts that a script imports at once, and they in turn. @param {string} path @param {Set<string>} [seen] @returns {Set<string>} */
function imported(path, seen = new Set()) {
  if (!seen.has(path)) {
    seen.add(path);
    for (const [, from = ""] of readFileSync(path, "utf8").matchAll(/\b(?:from|import) ?["'](\.[^"']+)["']/g)) {
      imported(join(path, "..", from), seen);
    }
  }
  return seen;
}

test("a first screen's JavaScript is at most 60 KB gzipped, its wasm at most 4.5 MB, or 2.2 MB for the CPU alone", () => {
  // It loads one of the two modules; the other one's JavaScript is smaller. What comes later (other
  // languages, the face maker and the like, the service worker once the model is there) nobody waits for: it has a limit of its own.
  const scripts = files(`${ROOT}pkg`, ".js").filter((path) => !path.includes("wasm-threads") && !path.endsWith("/vite.js"));
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
  const entries = ["page", "face-studio/face-studio", "engine/worker", "engine/thread", "wasm/facestudio"];
  const first = new Set(entries.flatMap((name) => [...imported(`${ROOT}pkg/${name}.js`)]));
  const js = gzipped([...first].filter((path) => !path.includes("wasm-threads")));
  // The converter comes where somebody makes a model, which is gigabytes.
  const converter = scripts.filter((path) => path.endsWith("engine/converter.js"));
  const later = gzipped(scripts.filter((path) => !first.has(path) && !converter.includes(path)));
  const [wasm, threads] = ["wasm", "wasm-threads"].map((folder) => gzipped(files(`${ROOT}pkg/${folder}`, ".wasm")));
  const MB = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(2);
  console.log(
    `JavaScript ${(js / 1000).toFixed(1)} KB, later ${(later / 1000).toFixed(1)} KB, wasm ${MB(wasm)} MB, with threads ${MB(threads)} MB gzipped`,
  );
  assert.ok(js <= 60_000, `${js} bytes of JavaScript`);
  assert.ok(later <= 30_000, `${later} bytes of JavaScript that is loaded later`);
  assert.ok(gzipped(converter) <= 25_000, `${gzipped(converter)} bytes of the converter's JavaScript`);
  assert.ok(wasm > 0 && wasm <= 4_500_000, `${wasm} bytes of wasm`);
  assert.ok(threads > 0 && threads <= 2_200_000, `${threads} bytes of wasm with threads`);
});

test("every script of the package finds what it imports, and nothing lies there that nobody reads", () => {
  const scripts = files(`${ROOT}pkg`, ".js").filter((path) => !path.startsWith(`${ROOT}pkg/wasm`));
  const read = new Set(
    [
      "index",
      "page",
      "bench",
      "sw",
      "vite",
      "engine/client",
      "engine/worker",
      "engine/thread",
      "engine/models",
      "engine/converter",
      "face-studio/face-studio",
    ].map((name) => `${ROOT}pkg/${name}.js`),
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

test("the page is installable: its manifest, its icons and what is shown beside a link are there, as large as they say", () => {
  const pkg = `${ROOT}pkg/`;
  const manifest = JSON.parse(readFileSync(`${pkg}manifest.webmanifest`, "utf8"));
  assert.deepEqual([manifest.display, manifest.start_url, manifest.scope], ["standalone", "./", "./"]);
  /** Width and height of a PNG. @param {Buffer} png */
  const sides = (png) => [png.readUInt32BE(16), png.readUInt32BE(20)];
  const shell = readFileSync(`${pkg}sw.js`, "utf8");
  for (const { src, sizes, type } of manifest.icons) {
    const icon = readFileSync(pkg + src);
    if (type === "image/png") {
      assert.equal(sides(icon).join("x"), sizes);
    } else {
      assert.match(icon.toString(), /^<svg /);
    }
    assert.ok(shell.includes(`"${src}"`), `${src} is not kept for a visit without a network`);
  }
  assert.ok(manifest.icons.some((/** @type {any} */ { sizes, purpose }) => sizes === "512x512" && purpose === "maskable"));
  const page = readFileSync(`${pkg}index.html`, "utf8");
  for (const [, path = ""] of page.matchAll(/<(?:link|meta)[^>]* (?:href|content)="((?:icons\/|manifest)[^"]*)"/g)) {
    assert.ok(existsSync(pkg + path), path);
  }
  const icon = readFileSync(`${pkg}icons/favicon.ico`);
  assert.deepEqual([icon.readUInt32LE(0), icon.readUInt16LE(4), icon[6]], [0x10000, 1, 32]);
  assert.deepEqual(sides(icon.subarray(icon.readUInt32LE(18))), [32, 32]);
  assert.deepEqual(readFileSync(`${pkg}icons/social.jpg`).subarray(0, 2), Buffer.from([0xff, 0xd8]));
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

test("a language is chosen by its code, numbers are written its way, gaps without a value stay", async () => {
  assert.deepEqual(LANGUAGES, Object.keys(TABLES));
  assert.match(lookUp("de", "generate", {}), /Generate/, "until its words are there, English");
  await loadLanguage("de");
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
  // What is used of npm packages is in the scripts.
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
    .map(([, from = ""]) => from)
    .filter((from) => !/^\.{1,2}\//.test(from));
  const notices = readFileSync(`${ROOT}THIRD-PARTY-NOTICES.txt`, "utf8");
  for (const from of foreign) {
    const [, name = ""] = /^((?:@[\w-]+\/)?[\w-]+)/.exec(from) ?? [];
    const { version } = JSON.parse(readFileSync(`${ROOT}node_modules/${name}/package.json`, "utf8"));
    assert.ok(notices.includes(`* ${name} ${version} `), `${name} ${version} is not named`);
  }
});

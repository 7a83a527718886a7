/**
 * Writes THIRD-PARTY-NOTICES.txt: whose code is in the program and in pkg/, and under which licences. From Cargo.lock and the
 * crates' own files, and from the npm packages that scripts of web/ import; the others are tools, of which nothing is passed on.
 * `--check` says whether it is up to date.
 */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const FILE = `${ROOT}THIRD-PARTY-NOTICES.txt`;

/** What is passed on: the program, with every backend, and the two modules of pkg/ (see cargo-wasm.sh). */
const BUILDS = [
  ...["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"].map((target) => [
    "--package",
    "facestudio-cli",
    "--target",
    target,
    "--features",
    "gpu,torch",
  ]),
  ["--package", "facestudio-convert-wasi", "--target", "wasm32-wasip1"],
  ...["cpu,gpu", "threads"].map((features) => [
    "--package",
    "facestudio-wasm",
    "--target",
    "wasm32-unknown-unknown",
    "--no-default-features",
    "--features",
    features,
  ]),
];

const LICENCE_FILE = /^(licen[cs]e|copying|copyright|notice|unlicen[cs]e)/i;

/** @typedef {{ name: string, version: string, license: string | null, authors: string[], repository: string | null, manifest_path: string }} Crate */

/** @param {string[]} options @returns {string} */
const cargo = (...options) => execFileSync("cargo", options, { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 28 });

const read = (/** @type {string} */ path) => readFileSync(path, "utf8").replaceAll("\r\n", "\n").trim();

/** The crates whose code is in one of the builds, by name. @returns {Crate[]} */
function crates() {
  const built = new Set();
  for (const options of BUILDS) {
    const listed = cargo("tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}", ...options);
    listed.split("\n").forEach((line) => built.add(line.replace(" (*)", "")));
  }
  /** @type {{ packages: Crate[] }} */
  const { packages } = JSON.parse(cargo("metadata", "--locked", "--format-version", "1", "--all-features"));
  const order = (/** @type {Crate} */ { name, version }) => `${name} ${version}`;
  return packages.filter(({ name, version }) => built.has(`${name} v${version}`)).sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

/** The npm packages whose code is in pkg/. @returns {Crate[]} */
function npmPackages() {
  const scripts = readdirSync(`${ROOT}web`, { recursive: true, encoding: "utf8" }).filter((path) =>
    /^(engine|face-studio)\/.*\.js$/.test(path),
  );
  const names = scripts.flatMap((path) => {
    const imports = readFileSync(`${ROOT}web/${path}`, "utf8").matchAll(/^import\b[^;]*?from "((?:@[\w-]+\/)?[\w-]+)[^"]*"/gm);
    return [...imports].map(([, name]) => name);
  });
  return [...new Set(names)].sort().map((name) => {
    const path = `${ROOT}node_modules/${name}/package.json`;
    const { version, license, homepage } = JSON.parse(readFileSync(path, "utf8"));
    return { name, version, license, authors: [], repository: homepage ?? `https://www.npmjs.com/package/${name}`, manifest_path: path };
  });
}

/** The texts of the crate's licence files, or of those whose names fit. @param {Crate} crate */
function ownTexts({ manifest_path }, pattern = LICENCE_FILE) {
  const folder = dirname(manifest_path);
  return readdirSync(folder)
    .filter((name) => pattern.test(name))
    .sort()
    .map((name) => read(join(folder, name)));
}

/** Whether the crate lets us choose the Apache License. @param {Crate} crate */
const isApache = ({ license }) =>
  license !== null && !/ AND /.test(license) && license.split(/ OR |\//).some((option) => option.trim() === "Apache-2.0");

/** The MIT License for a crate that brings no text of it. @param {Crate} crate */
function mit({ name, authors }) {
  const holders = authors.map((author) => author.replace(/\s*<.*>/, "") || author).join(", ") || `the authors of ${name}`;
  return read(`${ROOT}LICENSE-MIT`).replace(/^Copyright .*$/m, () => `Copyright (c) ${holders}`);
}

/** What has to be passed on with a crate. @param {Crate} crate @param {Crate[]} all */
function texts(crate, all) {
  if (isApache(crate)) {
    return [read(`${ROOT}LICENSE-APACHE`), ...ownTexts(crate, /^notice/i)];
  }
  const own = ownTexts(crate);
  if (own.length > 0) {
    return own;
  }
  if (crate.license === "MIT") {
    return [mit(crate)];
  }
  // The text of the Mozilla Public License names nobody: another crate has it.
  const same = all.find((other) => crate.license === "MPL-2.0" && other.license === "MPL-2.0" && ownTexts(other).length > 0);
  if (!same) {
    throw new Error(`${crate.name} ${crate.version} (${crate.license}) brings no text of its licence`);
  }
  return ownTexts(same);
}

const HEAD = `Third-party notices of FaceStudio

The program and the WebAssembly modules in pkg/ contain code of the crates below, some only in certain builds; the scripts in
pkg/ contain code of the npm packages. Each is named above the text of a licence under which it is passed on; where one may
choose, the Apache License is chosen. The sources of all, unchanged, are on crates.io or npmjs.com under the name and the
version given. The modules contain Rust's standard library
(Copyright The Rust Project Developers, https://github.com/rust-lang/rust), too, under the Apache License.

Written by scripts/notices.mjs from Cargo.lock and package-lock.json; not edited.
`;

function notices() {
  const all = [...crates(), ...npmPackages()];
  /** Texts with the crates that they are for. @type {Map<string, Crate[]>} */
  const groups = new Map();
  for (const crate of all) {
    for (const text of texts(crate, all)) {
      groups.set(text, [...(groups.get(text) ?? []), crate]);
    }
  }
  const line = (/** @type {Crate} */ { name, version, license, repository }) =>
    `* ${name} ${version} (${license ?? "see below"}) ${repository ?? ""}`.trimEnd();
  const parts = [...groups].map(([text, users]) => `${users.map(line).join("\n")}\n\n${text}\n`);
  return [HEAD, ...parts].join(`\n${"=".repeat(100)}\n\n`);
}

const written = notices();
if (!process.argv.includes("--check")) {
  writeFileSync(FILE, written);
} else if (!existsSync(FILE) || readFileSync(FILE, "utf8") !== written) {
  console.error("THIRD-PARTY-NOTICES.txt is not what Cargo.lock gives\n  help: run `node scripts/notices.mjs`");
  process.exitCode = 1;
}

/**
 * The package as npm packs it, in each bundler that people use and from a CDN: imported, built, and a picture drawn. The bundlers are
 * those of `tests/bundlers/package.json`; where they are not installed (`npm ci` there), `BUNDLERS=required` makes that a failure.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { after, before, test } from "node:test";

import { build } from "esbuild";

import { ROOT, openPage, startBrowser, tinyModel } from "./harness.mjs";

const HERE = `${ROOT}tests/bundlers/`;
const installed = existsSync(`${HERE}node_modules/vite`);
const skip = installed || process.env.BUNDLERS === "required" ? false : "npm ci in tests/bundlers first";
const require = createRequire(`${HERE}package.json`);

const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
});

/** A project of its own below the bundlers, with the package from its tarball. @type {string} */
let project;
/** @type {string} */
let models;
/** @type {import("playwright-core").Browser} */
let browser;
/** What every page draws: the same everywhere. @type {string | undefined} */
let expected;
/** @type {(() => unknown)[]} */
const closing = [];

before(async () => {
  models = tinyModel();
  browser = await startBrowser();
  project = mkdtempSync(join(HERE, "project-"));
  const [{ filename, files }] = JSON.parse(
    execFileSync("npm", ["pack", "--json", "--pack-destination", project], { cwd: `${ROOT}pkg`, encoding: "utf8", maxBuffer: 2 ** 26 }),
  );
  const packed = files.map((/** @type {any} */ { path }) => path);
  for (const name of ["CHANGELOG.md", "LICENSE-MIT", "custom-elements.json", "types/react.d.ts", "vite.js"]) {
    assert.ok(packed.includes(name), name);
  }
  assert.deepEqual(
    packed.filter((/** @type {string} */ path) => /\.(br|gz)$/.test(path)),
    [],
  );
  writeFileSync(
    join(project, "package.json"),
    JSON.stringify({ private: true, type: "module", "@parcel/resolver-default": { packageExports: true } }),
  );
  execFileSync("npm", ["install", "--offline", "--no-audit", "--no-fund", `./${filename}`], { cwd: project, stdio: "pipe" });
  cpSync(`${HERE}main.js`, join(project, "main.js"));
  page("index.html", "./main.js");
});

after(async () => {
  await browser?.close();
  for (const close of closing) {
    await close();
  }
  rmSync(project, { recursive: true, force: true });
});

/** Writes the page that loads a script, into the project. @param {string} name @param {string} script @param {string} [base] */
function page(name, script, base = "") {
  const before = base ? `<script>globalThis.facestudioBase = ${JSON.stringify(base)}</script>` : "";
  mkdirSync(join(project, name, ".."), { recursive: true });
  writeFileSync(
    join(project, name),
    `<!doctype html><meta charset="utf-8"><title>a bundler</title><link rel="icon" href="data:,">${before}<script type="module" src="${script}"></script>`,
  );
}

/**
 * Serves folders by the beginnings of paths.
 * @param {Record<string, string>} folders
 * @param {Record<string, string>} [headers]
 */
async function serve(folders, headers = {}) {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname);
    const start = Object.keys(folders).find((start) => path.startsWith(start)) ?? "/";
    let file = join(folders[start] ?? project, normalize(path.slice(start.length)));
    if (existsSync(file) && statSync(file).isDirectory()) {
      file = join(file, "index.html");
    }
    if (!existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", ...headers });
    response.end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  closing.push(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}/`;
}

/** Opens a page that was built, and has it draw. @param {string} url */
async function draws(url) {
  const { context, page, errors } = await openPage(browser);
  await page.goto(url);
  await page.waitForFunction(() => "draw" in globalThis);
  const { bytes, element } = await page.evaluate(() => /** @type {any} */ (globalThis).draw());
  assert.equal(element, true);
  assert.ok(bytes.startsWith("137,80,78,71"), "a PNG");
  expected ??= bytes;
  assert.equal(bytes, expected, "the same picture as from the others");
  assert.deepEqual(errors, []);
  await context.close();
}

test("Vite, while developing and built", { skip }, async () => {
  const { build, createServer } = await import(require.resolve("vite").replace(/index\.cjs$/, "dist/node/index.js"));
  const { default: facestudio } = await import(join(project, "node_modules/facestudio/vite.js"));
  mkdirSync(join(project, "public"), { recursive: true });
  symlinkSync(models, join(project, "public/models"));
  const config = { root: project, configFile: false, logLevel: "error", plugins: [facestudio()] };
  const server = await createServer({ ...config, server: { port: 0, host: "127.0.0.1", fs: { strict: false } } });
  await server.listen();
  try {
    await draws(server.resolvedUrls.local[0]);
  } finally {
    await server.close();
  }
  await build({ ...config, build: { outDir: "dist-vite", minify: false, copyPublicDir: false } });
  await draws(await serve({ "/models/": models, "/": join(project, "dist-vite") }));
});

test("webpack", { skip }, async () => {
  const webpack = require("webpack");
  const output = join(project, "dist-webpack");
  const stats = await new Promise((resolve, reject) => {
    const config = {
      mode: "production",
      context: project,
      entry: "./main.js",
      output: { path: output },
      optimization: { minimize: false },
      performance: { hints: false },
    };
    webpack(config, (/** @type {unknown} */ error, /** @type {any} */ done) => (error ? reject(error) : resolve(done)));
  });
  assert.deepEqual([stats.toJson({ all: false, errors: true, warnings: true }).errors, stats.compilation.warnings], [[], []]);
  page("dist-webpack/index.html", "main.js");
  await draws(await serve({ "/models/": models, "/": output }));
});

test("Parcel", { skip }, async () => {
  const parcel = require.resolve("parcel/lib/bin.js");
  execFileSync(
    process.execPath,
    [parcel, "build", "index.html", "--dist-dir", "dist-parcel", "--no-optimize", "--no-cache", "--no-source-maps"],
    { cwd: project, stdio: "pipe", env: { ...process.env, NODE_ENV: "production" } },
  );
  await draws(await serve({ "/models/": models, "/": join(project, "dist-parcel") }));
});

// They see no workers: the package is served beside what they build, and the page says where.
test("esbuild and Rollup, with the package beside what they build", { skip }, async () => {
  const copy = join(project, "node_modules/facestudio");
  await build({
    entryPoints: [join(project, "main.js")],
    bundle: true,
    splitting: true,
    format: "esm",
    outdir: join(project, "dist-esbuild"),
  });
  page("dist-esbuild/index.html", "main.js", "/facestudio/");
  await draws(await serve({ "/models/": models, "/facestudio/": copy, "/": join(project, "dist-esbuild") }));

  const { rollup } = await import(require.resolve("rollup").replace(/rollup\.js$/, "es/rollup.js"));
  const resolve = createRequire(join(project, "package.json")).resolve;
  const bundle = await rollup({
    input: join(project, "main.js"),
    plugins: [{ name: "packages", resolveId: (/** @type {string} */ id) => (id.startsWith("facestudio") ? resolve(id) : null) }],
  });
  await bundle.write({ dir: join(project, "dist-rollup"), format: "es" });
  page("dist-rollup/index.html", "main.js", "/facestudio/");
  await draws(await serve({ "/models/": models, "/facestudio/": copy, "/": join(project, "dist-rollup") }));
});

test("Next, which renders on a server first", { skip }, async () => {
  mkdirSync(join(project, "app"));
  cpSync(`${HERE}page.jsx`, join(project, "app/page.jsx"));
  cpSync(`${HERE}main.js`, join(project, "app/main.js"));
  writeFileSync(
    join(project, "app/layout.jsx"),
    "export default ({ children }) => <html lang='en'><head><link rel='icon' href='data:,' /></head><body>{children}</body></html>;\n",
  );
  writeFileSync(
    join(project, "next.config.mjs"),
    "export default { output: 'export', distDir: 'dist-next', images: { unoptimized: true } };\n",
  );
  execFileSync(process.execPath, [require.resolve("next/dist/bin/next"), "build"], {
    cwd: project,
    stdio: "pipe",
    env: { ...process.env, NODE_ENV: "production", NEXT_TELEMETRY_DISABLED: "1" },
  });
  await draws(await serve({ "/models/": models, "/": join(project, "dist-next") }));
});

test("one script from another origin, with its integrity, on all processors", async () => {
  const packed = join(project, "node_modules/facestudio");
  const cdn = await serve({ "/": packed }, { "access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin" });
  const hashes = JSON.parse(readFileSync(join(packed, "integrity.json"), "utf8"));
  const script = "face-studio/face-studio.js";
  const all = Object.fromEntries(Object.entries(hashes).map(([path, hash]) => [cdn + path, hash]));
  writeFileSync(
    join(project, "cdn.html"),
    `<!doctype html><meta charset="utf-8"><title>a CDN</title><link rel="icon" href="data:,">
    <script type="importmap">${JSON.stringify({ integrity: all })}</script>
    <script type="module" src="${cdn}${script}" integrity="${hashes[script]}" crossorigin="anonymous"></script>
    <face-studio model="/models/mini/" backend="cpu"></face-studio>`,
  );
  const isolated = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
  const url = await serve({ "/models/": models, "/": project }, isolated);
  const { context, page, errors } = await openPage(browser);
  await page.goto(`${url}cdn.html`);
  await page.waitForFunction(() => customElements.get("face-studio"));
  const made = await page.evaluate(async () => {
    const element = /** @type {any} */ (document.querySelector("face-studio"));
    const { choice, notices } = await element.load();
    const [{ png }] = await element.generate({ people: [], prompt: "a man", alpha: 0, seed: 7, steps: 1 });
    return { png: png.length, threads: choice.threads, most: Math.min(navigator.hardwareConcurrency, 8), notices };
  });
  assert.ok(made.png > 100);
  assert.deepEqual(made.notices, []);
  assert.equal(made.threads, made.most);
  assert.deepEqual(errors, []);

  // A script that is another than it should be does not run.
  writeFileSync(
    join(project, "forged.html"),
    readFileSync(join(project, "cdn.html"), "utf8").replaceAll(hashes[script], hashes["index.js"]),
  );
  await page.goto(`${url}forged.html`);
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(await page.evaluate(() => Boolean(customElements.get("face-studio"))), false);
  await context.close();
});

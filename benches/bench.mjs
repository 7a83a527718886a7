/**
 * Ours and the peer side by side, with the same random weights: `make bench`, or
 * `RUNS=20 THREADS=1 PYTHON=python3 BACKENDS=wasm,webgpu NETWORKS=mini-unet node benches/bench.mjs [FOLDER]`.
 *
 * Natively the peer is PyTorch, in the browser onnxruntime-web in the same Chromium, in `wasm` on one thread each and in
 * `wasm-threads` on THREADS. Outputs are compared
 * before anything is timed. Ours and the peer take turns, three times over, so that a busy minute meets both. FOLDER
 * (default target/bench) gets the networks, `results.json`, `results.md` for benches/RESULTS.md, and `results.svg`.
 *
 * Needs the release build of `facestudio`, target/bench-pkg (see the Makefile), and Python with what reference.py names.
 */

import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { availableParallelism, cpus } from "node:os";
import { extname, join } from "node:path";

import { chromium } from "playwright-core";

import { EXECUTABLE, FLAGS, ROOT } from "../tests/browser/harness.mjs";

const RUNS = Number(process.env.RUNS ?? 15);
const THREADS = Number(process.env.THREADS ?? availableParallelism());
const PYTHON = process.env.PYTHON ?? "python3";
const BACKENDS = (process.env.BACKENDS ?? "native,wasm,wasm-threads").split(",");
const ROUNDS = 3;
/** Largest difference from PyTorch's output, over the output's largest number. */
const TOLERANCE = 1e-4;
const folder = process.argv[2] ?? join(ROOT, "target/bench");
const reference = join(ROOT, "benches/reference.py");

const names = ["mini-unet", "sd15-unet", "mini-vae-decode", "sd15-vae-decode", "clip-vit"];
const networks = process.env.NETWORKS?.split(",") ?? names;
if (!names.every((name) => existsSync(join(folder, name, "bench.json")))) {
  mkdirSync(folder, { recursive: true });
  execFileSync(PYTHON, [reference, "export", folder], { stdio: "inherit" });
}

/** Tensors of a safetensors file of f32. @param {Buffer} bytes */
function tensors(bytes) {
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  delete header.__metadata__;
  return Object.fromEntries(
    Object.entries(header).map(
      ([
        name,
        {
          shape,
          data_offsets: [start, end],
        },
      ]) => {
        const data = bytes.buffer.slice(bytes.byteOffset + 8 + length + start, bytes.byteOffset + 8 + length + end);
        return [name, { shape, data: new Float32Array(data) }];
      },
    ),
  );
}

/** @param {string} name */
const about = (name) => JSON.parse(readFileSync(join(folder, name, "bench.json"), "utf8"));

/** PyTorch's output. @param {string} name */
const expected = (name) => tensors(readFileSync(join(folder, name, "outputs")))[about(name).output].data;

/** Refuses an output that is not PyTorch's. @param {string} who @param {ArrayLike<number>} output @param {Float32Array} right */
function check(who, output, right) {
  let [worst, largest] = [0, 0];
  for (let i = 0; i < right.length; i++) {
    worst = Math.max(worst, Math.abs(output[i] - right[i]));
    largest = Math.max(largest, Math.abs(right[i]));
  }
  if (output.length !== right.length || !(worst <= TOLERANCE * largest)) {
    throw new Error(`${who}: output is off by ${worst} of ${largest}`);
  }
}

/** @type {Record<string, { ours: number[], peer: number[], peerName: string, where: string }>} */
const results = {};
/** @param {string} name @param {string} where @param {string} peerName @param {{ ours: number[], peer: number[] }} times */
function note(name, where, peerName, times) {
  const result = (results[`${name} ${where}`] ??= { ours: [], peer: [], peerName, where });
  result.ours.push(...times.ours);
  result.peer.push(...times.peer);
}

function native() {
  const environment = { ...process.env, THREADS: `${THREADS}`, OMP_NUM_THREADS: `${THREADS}`, RAYON_NUM_THREADS: `${THREADS}` };
  const run = (/** @type {string} */ program, /** @type {string[]} */ options) =>
    JSON.parse(execFileSync(program, options, { env: environment, stdio: ["ignore", "pipe", "ignore"] }).toString());
  for (const name of networks) {
    const model = join(folder, name);
    const output = join(folder, "output");
    const files = ["--model", model, "--inputs", join(model, "inputs"), "--output", output];
    const program = join(ROOT, "target/release/facestudio");
    for (let round = 0; round < ROUNDS; round++) {
      const runs = `${Math.ceil(RUNS / ROUNDS)}`;
      const ours = run(program, ["component", about(name).kind, ...files, "--repeat", runs]);
      check(`${name}, ours`, tensors(readFileSync(output))[about(name).output].data, expected(name));
      const peer = run(PYTHON, [reference, "time", folder, name, runs]);
      if (ours.threads !== THREADS || peer.threads !== THREADS) {
        throw new Error(`threads: ours ${ours.threads}, PyTorch ${peer.threads}, asked ${THREADS}`);
      }
      note(name, `native, ${THREADS} thread${THREADS > 1 ? "s" : ""}`, `PyTorch ${peer.version}`, {
        ours: ours.milliseconds,
        peer: peer.milliseconds,
      });
    }
  }
}

const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

async function browser(/** @type {string[]} */ backends) {
  const roots = {
    "/bench/": join(ROOT, "benches"),
    "/engine/": join(ROOT, "web/engine"),
    "/wasm/": join(ROOT, "target/bench-pkg/wasm"),
    "/wasm-threads/": join(ROOT, "target/bench-pkg/wasm-threads"),
    "/peer/": join(ROOT, "benches/node_modules/onnxruntime-web/dist"),
    "/models/": folder,
  };
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "", "http://localhost").pathname;
    // Isolated from other origins, so that threads can share memory.
    response.setHeader("cross-origin-opener-policy", "same-origin");
    response.setHeader("cross-origin-embedder-policy", "require-corp");
    if (path === "/") {
      return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>bench</title>");
    }
    const root = Object.entries(roots).find(([prefix]) => path.startsWith(prefix) && !path.includes(".."));
    const file = root && join(root[1], path.slice(root[0].length));
    if (!file || !existsSync(file)) {
      return response.writeHead(404).end();
    }
    response.writeHead(200, { "content-type": TYPES[/** @type {keyof TYPES} */ (extname(file))] ?? "application/octet-stream" });
    return createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const chrome = await chromium.launch({ executablePath: EXECUTABLE, args: FLAGS, headless: true, timeout: 0 });
  try {
    for (const backend of backends) {
      if (backend === "wasm-threads" && THREADS < 2) {
        continue;
      }
      for (const name of networks) {
        const page = await chrome.newPage();
        page.setDefaultTimeout(0);
        page.on("pageerror", (error) => console.error(error.message));
        await page.goto(`http://127.0.0.1:${port}/`);
        const { kind } = about(name);
        const threads = backend === "wasm-threads" ? THREADS : 1;
        const { adapter, outputs, times } = await page.evaluate(
          (task) =>
            new Promise((resolve, reject) => {
              const name = "facestudio-bench";
              const worker = new Worker("/bench/worker.mjs", { type: "module", name });
              // A thread that traps says so here.
              new BroadcastChannel(name).onmessage = ({ data }) => reject(new Error(data.message));
              worker.onmessage = ({ data }) => (data.result ? resolve(data.result) : reject(new Error(data.error)));
              worker.onerror = (event) => reject(new Error(event.message || "the bench's worker cannot be loaded"));
              worker.postMessage(task);
            }),
          { name, kind, backend: backend.replace("-threads", ""), threads, runs: RUNS, rounds: ROUNDS },
        );
        check(`${name}, ours, ${backend}`, outputs.ours, expected(name));
        check(`${name}, onnxruntime-web, ${backend}`, outputs.peer, expected(name));
        const where = backend === "webgpu" ? `WebGPU (${adapter})` : `wasm, ${threads} thread${threads > 1 ? "s" : ""}`;
        note(name, where, "onnxruntime-web 1.30.0", times);
        await page.close();
      }
    }
  } finally {
    await chrome.close();
    server.close();
  }
}

/** @param {number[]} times @param {number} part */
const quantile = (times, part) => times.toSorted((a, b) => a - b)[Math.round((times.length - 1) * part)];
/** Median, and from where to where half of the runs lie. @param {number[]} times */
function spread(times) {
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(times, part));
  const digits = middle < 100 ? 1 : 0;
  return `${middle.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;
}

function report() {
  const rows = Object.entries(results).map(([key, { ours, peer, peerName, where }]) => ({
    name: key.slice(0, -where.length - 1),
    where,
    peerName,
    ours,
    peer,
    ratio: quantile(ours, 0.5) / quantile(peer, 0.5),
    fastest: Math.min(...ours) / Math.min(...peer),
  }));
  const table = [
    `${cpus()[0].model.trim()}, ${availableParallelism()} processors; f32; ${new Date().toISOString().slice(0, 10)}; ` +
      `${rows[0]?.ours.length} runs each, after a warm-up; milliseconds as median (middle half).`,
    "",
    "| network | where | ours | peer | ratio of medians | of the fastest runs |",
    "|---|---|---|---|---|---|",
    ...rows.map(
      ({ name, where, peerName, ours, peer, ratio, fastest }) =>
        `| ${name} | ${where} | ${spread(ours)} | ${spread(peer)}, ${peerName} | ${ratio.toFixed(2)} | ${fastest.toFixed(2)} |`,
    ),
  ].join("\n");
  writeFileSync(join(folder, "results.json"), `${JSON.stringify(rows, null, 1)}\n`);
  writeFileSync(join(folder, "results.md"), `${table}\n`);
  writeFileSync(join(folder, "results.svg"), plot(rows));
  console.log(table);
}

/**
 * Ratios as bars; the line is the peer.
 * @param {{ name: string, where: string, ratio: number, ours: number[], peer: number[] }[]} rows
 */
function plot(rows) {
  const scale = 240 / Math.max(1.2, ...rows.map(({ ratio }) => ratio));
  const bars = rows.map(({ name, where, ratio, ours, peer }, i) => {
    const y = 34 + 22 * i;
    const middle = quantile(peer, 0.5);
    const [low, high] = [0.25, 0.75].map((part) => 300 + (quantile(ours, part) / middle) * scale);
    return (
      `<text x="290" y="${y + 11}" text-anchor="end">${name}, ${where}</text>` +
      `<rect x="300" y="${y}" width="${(ratio * scale).toFixed(1)}" height="14" fill="${ratio <= 1 ? "#2a7d4f" : "#b4552d"}"/>` +
      `<path d="M${low.toFixed(1)} ${y + 7}H${high.toFixed(1)}" stroke="#000" stroke-opacity=".6"/>` +
      `<text x="${(306 + Math.max(ratio * scale, high - 300)).toFixed(1)}" y="${y + 11}">${ratio.toFixed(2)}</text>`
    );
  });
  const height = 44 + 22 * rows.length;
  const one = (300 + scale).toFixed(1);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 ${height}" font-family="sans-serif" font-size="11">
<rect width="600" height="${height}" fill="#fff"/>
<text x="10" y="16">our time over the peer's; the line is the peer, thin bars the middle half of our runs</text>
${bars.join("\n")}
<path d="M${one} 24V${height - 8}" stroke="#000" stroke-dasharray="3 3"/>
</svg>
`;
}

if (BACKENDS.includes("native")) {
  native();
}
const inBrowser = BACKENDS.filter((backend) => backend !== "native");
if (inBrowser.length > 0) {
  await browser(inBrowser);
}
report();

/** Runs one network in the browser, ours and onnxruntime-web's; in a worker, since only there may threads be waited for. */

import { loadModule } from "/engine/module.js";

/** @typedef {{ name: string, kind: string, backend: string, threads: number, runs: number, rounds: number }} Task */

/** @param {Task} task */
async function time({ name, kind, backend, threads, runs, rounds }) {
  const get = async (/** @type {string} */ file) => {
    const response = await fetch(`/models/${name}/${file}`);
    if (!response.ok) {
      throw new Error(`${file}: ${response.status}`);
    }
    return new Uint8Array(await response.arrayBuffer());
  };
  const weights = kind === "vision-encoder" ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
  const inputs = await get("inputs");

  const started = await loadModule(threads);
  if (started.threads !== threads) {
    throw new Error(started.notices[0]?.message);
  }
  const ours = /** @type {any} */ (started.wasm);
  const bench = await ours.Bench.open(backend === "wasm" ? "cpu" : backend, kind, await get("config.json"), await get(weights), inputs);
  const runOurs = () => bench.run();

  const ort = await import(backend === "wasm" ? "/peer/ort.wasm.min.mjs" : "/peer/ort.webgpu.min.mjs");
  ort.env.wasm.wasmPaths = "/peer/";
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(await get("model.onnx"), {
    executionProviders: [backend],
    graphOptimizationLevel: "all",
  });
  const length = Number(new DataView(inputs.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(inputs.subarray(8, 8 + length)));
  const feeds = Object.fromEntries(
    session.inputNames.map((/** @type {string} */ input) => {
      const {
        shape,
        data_offsets: [start, end],
      } = header[input];
      const data = inputs.slice(8 + length + start, 8 + length + end);
      return [input, new ort.Tensor("float32", new Float32Array(data.buffer), shape)];
    }),
  );
  const runPeer = async () => (await session.run(feeds)).output.getData();

  // Warm-up: engines compile their hot code, pipelines are made.
  const warm = async (/** @type {() => Promise<any>} */ run) => {
    let output;
    for (let i = 0; i < 4; i++) {
      output = await run();
    }
    return Array.from(output);
  };
  const outputs = { ours: await warm(runOurs), peer: await warm(runPeer) };
  const times = { ours: /** @type {number[]} */ ([]), peer: /** @type {number[]} */ ([]) };
  for (let round = 0; round < rounds; round++) {
    for (const [who, run] of /** @type {const} */ ([
      ["ours", runOurs],
      ["peer", runPeer],
    ])) {
      for (let i = 0; i < Math.ceil(runs / rounds); i++) {
        const start = performance.now();
        await run();
        times[who].push(performance.now() - start);
      }
    }
  }
  const info = (await /** @type {any} */ (navigator).gpu?.requestAdapter())?.info;
  return { adapter: `${info?.vendor} ${info?.architecture}`, outputs, times };
}

self.addEventListener("message", ({ data }) => {
  time(data).then(
    (result) => self.postMessage({ result }),
    (thrown) => self.postMessage({ error: thrown instanceof Error ? thrown.message : JSON.stringify(thrown) }),
  );
});

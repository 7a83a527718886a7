/** What Vite has to be told: the worker is a module with parts of its own, and development must leave the package where its worker lies. */

/** The plugin, for `plugins` of a Vite config. */
export default function facestudio() {
  return {
    name: "facestudio",
    config: () => ({ optimizeDeps: { exclude: ["facestudio"] }, worker: { format: /** @type {const} */ ("es") } }),
  };
}

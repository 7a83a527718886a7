/** The demo page's own script: its language and colours, drops beside the studio, and that it works offline. */

const studio = document.querySelector("face-studio");

// As its user chose at an earlier visit, else as the browser is set. On pages that embed the element it is the page that decides.
let look = {};
try {
  look = Object(JSON.parse(localStorage.getItem("facestudio-look") ?? "{}"));
} catch {
  // Nothing can be kept here.
}
const { lang = navigator.language, theme = "auto" } = /** @type {{ lang?: string, theme?: string }} */ (look);
studio?.setAttribute("lang", lang);
studio?.setAttribute("theme", theme);

// A file that misses the studio opens nothing.
for (const type of ["dragover", "drop"]) {
  addEventListener(type, (event) => event.preventDefault());
}

/** @param {string} module the folder of the module that computes */
function workOffline(module) {
  // Seen from this file, so that a page in a subfolder keeps to its own scope.
  navigator.serviceWorker?.register(new URL(`sw.js?${module}`, import.meta.url)).catch((error) => {
    console.warn(`The page will not work offline: ${error.message}`);
  });
}

// Once the model is there: until then the network is wanted for that. Only the module that computes is kept.
studio?.addEventListener(
  "facestudio-ready",
  ({ detail: { choice } }) => {
    // What isolates the page from its next visit on is the service worker: all processors compute then.
    const soon = !crossOriginIsolated && "waitAsync" in Atomics && navigator.hardwareConcurrency > 1;
    workOffline(choice.backend === "cpu" && (choice.threads > 1 || soon) ? "wasm-threads" : "wasm");
  },
  { once: true },
);

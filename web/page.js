/** The demo page's own script: lets it work offline. The element itself registers nothing on the pages that embed it. */

// Seen from this file, so that a page in a subfolder keeps to its own scope.
navigator.serviceWorker?.register(new URL("sw.js", import.meta.url)).catch((error) => {
  console.warn(`The page will not work offline: ${error.message}`);
});

/** What every bundler gets: the element, and the package without an interface. The test calls what it leaves in the page. */

import { FaceStudio, setBase } from "facestudio";
import "facestudio/element";

// For bundlers that see neither workers nor wasm, a copy of the package is served.
if (globalThis.facestudioBase) {
  setBase(globalThis.facestudioBase);
}

globalThis.draw = async () => {
  const studio = new FaceStudio({ model: "/models/mini/", backend: "cpu" });
  const [{ png }] = await studio.generate({ people: [], prompt: "a man", alpha: 0, seed: 7, steps: 1 });
  studio.close();
  return { bytes: [...png].join(), element: Boolean(customElements.get("face-studio")) };
};

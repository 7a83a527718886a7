/** `<face-studio>` in templates of Svelte 5: `import type {} from "facestudio/svelte"` once in a project. */

import type { HTMLAttributes } from "svelte/elements";
import type { FaceStudioElement, FaceStudioEventMap } from "../element.js";
import type { FaceStudioAttributes } from "./attributes.js";

type Listeners = { [Name in keyof FaceStudioEventMap as `on${Name}`]?: (event: FaceStudioEventMap[Name]) => void };

declare module "svelte/elements" {
  interface SvelteHTMLElements {
    "face-studio": Omit<HTMLAttributes<FaceStudioElement>, keyof FaceStudioAttributes> & FaceStudioAttributes & Listeners;
  }
}

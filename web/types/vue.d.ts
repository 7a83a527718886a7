/** `<face-studio>` in templates of Vue 3: `import type {} from "facestudio/vue"` once in a project. */

import type { DefineComponent } from "vue";
import type { FaceStudioAttributes } from "./attributes.js";

declare module "vue" {
  interface GlobalComponents {
    "face-studio": DefineComponent<FaceStudioAttributes>;
  }
}

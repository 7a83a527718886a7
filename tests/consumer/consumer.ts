// A page's code as strict TypeScript sees it; tests/browser/package.test.mjs compiles it against pkg/.

import { EngineClient, FaceStudio, FaceStudioError } from "facestudio";
import type { FaceStudioElement } from "facestudio/element";
import type { GenerateRequest, Picture } from "facestudio/protocol";
import type { Recipe } from "facestudio/recipe";

export async function withoutInterface(photo: Uint8Array, signal: AbortSignal): Promise<Picture[]> {
  const studio = new FaceStudio({ model: "/models/mini/", backend: "auto" });
  const opened = await studio.load({ onProgress: ({ phase, seconds_left }) => console.log(phase, seconds_left?.toFixed()) });
  const width: number = opened.abilities.width ?? 128;
  const request: GenerateRequest = { people: [{ identities: [{ photos: [photo] }] }], prompt: "a portrait", width };
  try {
    return await studio.generate(request, { signal });
  } catch (error) {
    if (error instanceof FaceStudioError && error.fault === "cancelled") {
      return [];
    }
    throw error;
  }
}

export function withElement(element: FaceStudioElement): void {
  element.addEventListener("facestudio-result", ({ detail }) => {
    const png: Uint8Array | undefined = detail[0]?.png;
    console.log(png?.length, detail[0]?.seed);
  });
  void element.generate({ people: [], prompt: "a portrait" });
  element.cancel();
  const made = document.createElement("face-studio");
  void made.load();

  // @ts-expect-error: a request names its people
  void element.generate({ prompt: "a portrait" });
  // @ts-expect-error: there is no such sampler
  void element.generate({ people: [], sampler: "fastest" });
}

export async function again(studio: FaceStudio, picture: Picture, photo: Uint8Array): Promise<Picture[]> {
  const recipe: Recipe = picture.recipe;
  const hash: string | undefined = recipe.people[0]?.identities[0]?.photos[0];
  console.log(hash?.length, recipe.model.sha256, recipe.seed);
  return studio.generate(await studio.requestFor(picture.png, [photo]));
}

export async function withEngine(): Promise<number> {
  const engine = new EngineClient();
  // @ts-expect-error: there is no such backend
  await engine.open({ model: "/models/mini/", backend: "tpu" });
  const faces = await engine.faces(new Uint8Array());
  return faces[0]?.box[0] ?? 0;
}

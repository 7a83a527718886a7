// Written from src/request.rs and its folder by the test `typescript_knows_the_same_recipe`; not edited.

import type { Sampler } from "./protocol.js";

/**
 * Everything that decides one picture, but the pixels of the pictures that it was made from: with those, and the same model in
 * the same precision, it makes the picture again. Another device rounds otherwise, which moves a pixel by a level or two.
 *
 * As JSON it is the text `facestudio` of a picture's PNG. Another format, and a field that is not known, are refused.
 */
export type Recipe = {
/**
 * Version of this format.
 */
format: number,
/**
 * The release of FaceStudio that made the picture.
 */
version: string,
/**
 * The model that made it.
 */
model: ModelId,
/**
 * What the denoiser computed in: `f16` or `f32`.
 */
precision: string,
/**
 * The people, from left to right where the layout finds them in a picture.
 */
people: Array<Person<PhotoHash>>,
/**
 * The style image.
 */
style?: PixelHash,
/**
 * The prompt; left out where the request wants no words in the file.
 */
prompt?: string,
/**
 * What the model was told of its reference pictures, where it sees any.
 */
roles?: Roles,
/**
 * What the picture should not show; left out with the prompt.
 */
negative_prompt?: string,
/**
 * The words that were learnt.
 */
embeddings?: Array<EmbeddingHash>,
/**
 * The layer of the text encoder that was read, counted from the last, which is 1.
 */
clip_skip?: number,
/**
 * Balance of hybrid guidance as it counted: 1 is the style image alone, 0 the prompt alone.
 */
alpha: number,
/**
 * Where each person goes.
 */
layout: Layout<PixelHash, PixelHash>,
/**
 * What fills the picture outside every person.
 */
background: Background,
/**
 * What the picture was started from instead of noise.
 */
init?: InitImage<PixelHash, PixelHash>,
/**
 * The photo that the people were put into, its faces by their boxes.
 */
into?: IntoPhoto<PixelHash, PixelHash>,
/**
 * Which faces were drawn once more.
 */
redraw_faces?: RedrawFaces,
/**
 * Seed of this picture's noise.
 */
seed: number | bigint,
/**
 * Denoising steps.
 */
steps: number,
/**
 * Classifier-free guidance scale; 1 is without guidance.
 */
guidance_scale: number,
/**
 * The sampler.
 */
sampler: Sampler,
/**
 * Width in pixels; of people who were put into a photo, that at which each head was drawn.
 */
width: number,
/**
 * Height in pixels, as the width.
 */
height: number,
/**
 * Whether the pixels are marked as generated.
 */
watermark: boolean, };

/**
 * Which model it is.
 */
export type ModelId = {
/**
 * The name in its manifest, where it has one.
 */
name?: string,
/**
 * The version in its manifest.
 */
version?: string,
/**
 * SHA-256 of the list of its components' files, as `sha256sum` writes it: the hash of each, two spaces, its path in the model
 * folder and a line feed, in order of component and file.
 */
sha256: string, };

/**
 * SHA-256 of a decoded picture, in lower-case hexadecimal: of its width and height as little-endian 32-bit numbers, and of its
 * pixels row by row, three bytes each, or one in a mask.
 */
export type PixelHash = string;

/**
 * Sentences before the prompt, one for each role that reference pictures have. In each, `{images}` becomes their names: `image 2`,
 * `images 1 and 2`, `images 1, 2 and 3`. An empty one is not said.
 */
export type Roles = {
/**
 * Of the picture that is started from.
 */
start: string,
/**
 * Of each person's photos.
 */
person: string,
/**
 * Of the style image.
 */
style: string, };

/**
 * An embedding in a recipe.
 */
export type EmbeddingHash = {
/**
 * Its word; left out with the prompt.
 */
word?: string,
/**
 * Of its vectors, see [`Embedding::sha256`].
 */
sha256: string, };

/**
 * A photo's hash, and the face in it that the request named.
 */
export type PhotoHash = {
/**
 * Of its pixels.
 */
sha256: PixelHash,
/**
 * The face that is meant; the largest that is found if left out.
 */
landmarks?: Array<[number, number]>, };

/**
 * One person of the picture: one identity, or a mix of several. `P` is a photo: its pixels, its file, or its hash, perhaps with the
 * face that is meant.
 */
export type Person<P> = {
/**
 * The identities that are mixed, `e_f = Σ β_i e_f^i`; usually one.
 */
identities: Array<Identity<P>>,
/**
 * How strongly the person acts, 0 to 2; 1, which is as the model was trained, if left out.
 */
strength?: number,
/**
 * The part of the steps from which on the person acts, 0 to 1; 0 if left out. Before, nobody is told of there.
 */
start?: number,
/**
 * The part of the steps up to which the person acts; 1 if left out.
 */
end?: number, };

/**
 * One real identity: photos of the same face, whose embeddings are averaged, and its mixing weight.
 */
export type Identity<P> = {
/**
 * Photos of this face.
 */
photos: Array<P>,
/**
 * Mixing weight β, 1 if left out; a person's weights are normalised to sum to 1. Where a model sees the photos themselves it is
 * how strongly they are seen, and 1 is as the model was trained.
 */
beta?: number, };

/**
 * Where the people of a picture go. `P` is a picture, `M` a mask.
 */
export type Layout<P, M> = "whole" | { "boxes": Array<RelativeBox> } | { "masks": Array<M> } | { "content": P };

/**
 * A box in fractions of the picture's width and height, from its top left corner.
 */
export type RelativeBox = {
/**
 * Left edge, 0 to 1.
 */
x: number,
/**
 * Top edge, 0 to 1.
 */
y: number,
/**
 * Width, 0 to 1.
 */
width: number,
/**
 * Height, 0 to 1.
 */
height: number, };

/**
 * What happens outside every person (paper section 3.4).
 */
export type Background = { "person": number } | "hold";

/**
 * Image-to-image and inpainting. `P` is a picture, `M` a mask.
 */
export type InitImage<P, M> = {
/**
 * The picture to start from; resized to cover the output.
 */
image: P,
/**
 * How much of the steps is taken: 0 returns the picture almost unchanged, 1 lays the first step's noise over it. With a mask,
 * 1 starts from noise alone.
 */
strength: number,
/**
 * Where the picture may change (white); everywhere if left out. Elsewhere latents are held.
 */
mask?: M, };

/**
 * A photo in which faces are drawn anew, each as one of the request's people. Outside of the heads' masks the picture is the photo,
 * byte for byte. `P` is a picture, `M` a mask.
 */
export type IntoPhoto<P, M> = {
/**
 * The photo, of at most 16 megapixels. The picture has its size.
 */
photo: P,
/**
 * Whose place is taken by whom.
 */
faces: Array<Replacement<M>>,
/**
 * How much of the steps is taken: 0 gives the faces back almost unchanged, 1 draws them from noise alone. 0.8 if left out.
 */
strength?: number, };

/**
 * A face of the photo, and who takes its place.
 */
export type Replacement<M> = {
/**
 * Which face.
 */
face: WhichFace,
/**
 * Index of the person among the request's people.
 */
person: number,
/**
 * Where the photo may change (white), of the photo's size; the head's oval if left out. Its edge is softened inwards.
 */
mask?: M, };

/**
 * A face of a photo.
 */
export type WhichFace = number | RelativeBox;

/**
 * Faces of a finished picture that are drawn once more, larger, each as the person whose place it is in.
 */
export type RedrawFaces = {
/**
 * How much of the steps is taken, 0 to 1: little, for what is there is to be drawn better, not otherwise.
 */
strength: number,
/**
 * Faces that are smaller than this, in pixels along the longer side, are redrawn; three tenths of the model's own shorter side
 * if left out.
 */
from?: number, };

/** Who is to be shown: the people, their identities and photos. No interface. */

/** @import { Bytes, Landmarks, Person, Photo as AskedPhoto } from "../engine/protocol.js" */

/**
 * A photo of a face. `real` tells what the user brought from what was drawn; `landmarks` where the face is, if that is known.
 * @typedef {{ bytes: Bytes, real: boolean, landmarks?: Landmarks }} Photo
 */

/** One identity of a mix, and its weight β. @typedef {{ photos: Photo[], beta: number }} IdentityChoice */

/** One person; `active` is the identity that a chosen face goes to. @typedef {{ identities: IdentityChoice[], active: number }} PersonChoice */

/** Most people in one picture, as in `src/request.rs`. */
export const MAX_PEOPLE = 8;

/** @returns {PersonChoice} */
export function newPerson() {
  return { identities: [{ photos: [], beta: 1 }], active: 0 };
}

/**
 * Puts a photo to the active identity: real photos of one face add up, a drawn face takes the place of all.
 * @param {PersonChoice} person
 * @param {Photo} photo
 */
export function addPhoto(person, photo) {
  const identity = person.identities[person.active];
  if (identity) {
    const kept = photo.real ? identity.photos.filter((other) => other.real) : [];
    identity.photos = [...kept, photo];
  }
}

/**
 * The shares that the weights come to, in whole percent that sum to 100 where any weight is above 0.
 * @param {IdentityChoice[]} identities
 * @returns {number[]}
 */
export function shares(identities) {
  const sum = identities.reduce((all, { beta }) => all + beta, 0);
  if (sum <= 0) {
    return identities.map(() => 0);
  }
  const exact = identities.map(({ beta }) => (100 * beta) / sum);
  const whole = exact.map(Math.floor);
  const missing = 100 - whole.reduce((all, share) => all + share, 0);
  const byRest = exact.map((share, i) => [share - Math.floor(share), i]).sort((a, b) => (b[0] ?? 0) - (a[0] ?? 0));
  for (const [, i = 0] of byRest.slice(0, missing)) {
    whole[i] = (whole[i] ?? 0) + 1;
  }
  return whole;
}

/**
 * As a request wants it; null without any photo.
 * @param {PersonChoice} person
 * @returns {Person | null}
 */
export function toPerson(person) {
  const identities = person.identities
    .filter(({ photos }) => photos.length > 0)
    .map(({ photos, beta }) => ({
      photos: photos.map(({ bytes, landmarks }) => (landmarks ? { image: bytes, landmarks } : bytes)),
      beta,
    }));
  return identities.length > 0 ? { identities } : null;
}

/**
 * The choice behind a person of a request. Its photos count as real ones: more can be added.
 * @param {Person} person
 * @returns {PersonChoice}
 */
export function fromPerson({ identities }) {
  return {
    identities: identities.map(({ photos, beta = 1 }) => ({ photos: photos.map((photo) => ({ ...parts(photo), real: true })), beta })),
    active: 0,
  };
}

/**
 * The pictures of a request's people: the first photo of each.
 * @param {Person[]} people
 */
export function facesOf(people) {
  return people.map(({ identities }) => identities[0]?.photos[0]).map((photo) => photo && parts(photo).bytes);
}

/** @param {AskedPhoto} photo */
function parts(photo) {
  return "landmarks" in photo ? { bytes: photo.image, landmarks: photo.landmarks } : { bytes: photo };
}

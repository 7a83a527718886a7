/** Several files as one archive, stored as they are (PNG is packed already). Loaded when it is needed. */

/** Values of the checksum of one byte. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) {
    value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  }
  return value;
});

/** CRC-32 of ISO 3309. @param {Uint8Array} bytes */
function checksum(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value = (TABLE[(value ^ byte) & 255] ?? 0) ^ (value >>> 8);
  }
  return (value ^ 0xffffffff) >>> 0;
}

/**
 * Numbers as little-endian bytes.
 * @param {...[number, 2 | 4]} numbers each with how many bytes it has
 */
function record(...numbers) {
  return Uint8Array.from(numbers.flatMap(([value, size]) => Array.from({ length: size }, (_, i) => (value / 256 ** i) & 255)));
}

/**
 * @param {{ name: string, bytes: Uint8Array }[]} files
 * @returns {Blob}
 */
export function zip(files) {
  /** @type {Uint8Array[]} */
  const parts = [];
  /** @type {Uint8Array[]} */
  const directory = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name);
    /** Version 2.0, names in UTF-8, stored, no time. @type {[number, 2 | 4][]} */
    const common = [
      ...[20, 0x800, 0, 0, 0x21].map((value) => /** @type {[number, 2]} */ ([value, 2])),
      ...[checksum(bytes), bytes.length, bytes.length].map((value) => /** @type {[number, 4]} */ ([value, 4])),
      ...[path.length, 0].map((value) => /** @type {[number, 2]} */ ([value, 2])),
    ];
    const head = record([0x04034b50, 4], ...common);
    parts.push(head, path, bytes);
    directory.push(record([0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), path);
    offset += head.length + path.length + bytes.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  const end = record([0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob(/** @type {BlobPart[]} */ ([...parts, ...directory, end]), { type: "application/zip" });
}

/**
 * Files of the browser's storage as a program of WASI sees them. What it writes goes into one file of storage, one after the other: a
 * program opens files at once, and storage does not.
 */

import { Fd, Inode, PreopenDirectory, Directory, wasi } from "@bjorn3/browser_wasi_shim";

/**
 * What is used of a FileSystemSyncAccessHandle.
 * @typedef {object} Handle
 * @property {(into: Uint8Array, options: { at: number }) => number} read
 * @property {(from: Uint8Array, options: { at: number }) => number} write
 * @property {() => number} getSize
 * @property {() => void} close
 */

/** Where something lies: bytes of a handle, or of memory. @typedef {{ handle: Pick<Handle, "read">, start: number, bytes: number }} Place */

/** Bytes in memory, read as a handle is. @param {Uint8Array} bytes @returns {Place} */
export function inMemory(bytes) {
  const read = (/** @type {Uint8Array} */ into, /** @type {{ at: number }} */ { at }) => {
    const part = bytes.subarray(at, at + into.length);
    into.set(part);
    return part.length;
  };
  return { handle: { read }, start: 0, bytes: bytes.length };
}

/** The file that everything is written into, to its end. */
export class Scratch {
  /** @param {Handle} handle @param {number} end */
  constructor(handle, end) {
    this.handle = handle;
    this.end = end;
  }

  /** Appends; false where storage is full. @param {Uint8Array} bytes */
  append(bytes) {
    const written = this.handle.write(bytes, { at: this.end });
    this.end += written;
    return written === bytes.length;
  }
}

/** A file that can be read, or that is being written. */
class VirtualFile extends Inode {
  /** @type {Place | null} */
  place;
  #scratch;

  /** @param {Place | null} place @param {Scratch | null} scratch */
  constructor(place, scratch) {
    super();
    this.place = place;
    this.#scratch = scratch;
  }

  /** @param {number} flags */
  path_open(flags) {
    const truncates = (flags & wasi.OFLAGS_TRUNC) !== 0;
    if (truncates && this.#scratch) {
      this.place = { handle: this.#scratch.handle, start: this.#scratch.end, bytes: 0 };
    }
    return truncates && !this.#scratch
      ? { ret: wasi.ERRNO_PERM, fd_obj: null }
      : { ret: wasi.ERRNO_SUCCESS, fd_obj: new OpenFile(this, this.#scratch) };
  }

  stat() {
    return new wasi.Filestat(this.ino, wasi.FILETYPE_REGULAR_FILE, BigInt(this.place?.bytes ?? 0));
  }
}

class OpenFile extends Fd {
  #file;
  #scratch;
  #at = 0;

  /** @param {VirtualFile} file @param {Scratch | null} scratch */
  constructor(file, scratch) {
    super();
    this.#file = file;
    this.#scratch = scratch;
  }

  fd_fdstat_get() {
    return { ret: wasi.ERRNO_SUCCESS, fdstat: new wasi.Fdstat(wasi.FILETYPE_REGULAR_FILE, 0) };
  }

  fd_filestat_get() {
    return { ret: wasi.ERRNO_SUCCESS, filestat: this.#file.stat() };
  }

  /** @param {number} size @param {bigint} offset */
  fd_pread(size, offset) {
    const place = this.#file.place;
    const left = Math.max(0, Math.min(size, (place?.bytes ?? 0) - Number(offset)));
    const data = new Uint8Array(left);
    const count = place && left > 0 ? place.handle.read(data, { at: place.start + Number(offset) }) : 0;
    return { ret: wasi.ERRNO_SUCCESS, data: data.subarray(0, count) };
  }

  /** @param {number} size */
  fd_read(size) {
    const read = this.fd_pread(size, BigInt(this.#at));
    this.#at += read.data.length;
    return read;
  }

  /** @param {bigint} offset @param {number} whence */
  fd_seek(offset, whence) {
    const from = { [wasi.WHENCE_SET]: 0, [wasi.WHENCE_CUR]: this.#at, [wasi.WHENCE_END]: this.#file.place?.bytes ?? 0 }[whence];
    const at = (from ?? NaN) + Number(offset);
    if (!(at >= 0)) {
      return { ret: wasi.ERRNO_INVAL, offset: 0n };
    }
    this.#at = at;
    return { ret: wasi.ERRNO_SUCCESS, offset: BigInt(at) };
  }

  fd_tell() {
    return { ret: wasi.ERRNO_SUCCESS, offset: BigInt(this.#at) };
  }

  /** Only at the end, and one file after the other. @param {Uint8Array} data */
  fd_write(data) {
    const place = this.#file.place;
    if (!this.#scratch || !place || place.start + place.bytes !== this.#scratch.end || this.#at !== place.bytes) {
      return { ret: wasi.ERRNO_NOTSUP, nwritten: 0 };
    }
    if (!this.#scratch.append(data)) {
      return { ret: wasi.ERRNO_NOSPC, nwritten: 0 };
    }
    place.bytes += data.length;
    this.#at = place.bytes;
    return { ret: wasi.ERRNO_SUCCESS, nwritten: data.length };
  }
}

/** A folder whose new files go into a scratch file. */
class WrittenFolder extends Directory {
  #scratch;

  /** @param {Map<string, Inode>} contents @param {Scratch} scratch */
  constructor(contents, scratch) {
    super(contents);
    this.#scratch = scratch;
  }

  /** @param {string} path @param {boolean} isFolder */
  create_entry_for_path(path, isFolder) {
    const parts = path.split("/").filter(Boolean);
    const name = parts.pop() ?? "";
    /** @type {Directory} */
    let folder = this;
    for (const part of parts) {
      const next = folder.contents.get(part);
      if (!(next instanceof Directory)) {
        return { ret: wasi.ERRNO_NOENT, entry: null };
      }
      folder = next;
    }
    if (folder.contents.has(name)) {
      return { ret: wasi.ERRNO_EXIST, entry: null };
    }
    const entry = isFolder ? new WrittenFolder(new Map(), this.#scratch) : new VirtualFile(null, this.#scratch);
    folder.contents.set(name, entry);
    return { ret: wasi.ERRNO_SUCCESS, entry };
  }
}

/**
 * @param {Iterable<[string, Place]>} files by their paths
 * @param {(contents: Map<string, Inode>) => Directory} folder
 * @param {Scratch | null} scratch what replaces a file goes there
 */
function tree(files, folder, scratch) {
  const root = folder(new Map());
  for (const [path, place] of files) {
    const parts = path.split("/");
    const name = parts.pop() ?? "";
    let at = root;
    for (const part of parts) {
      let next = /** @type {Directory | undefined} */ (at.contents.get(part));
      if (!next) {
        next = folder(new Map());
        at.contents.set(part, next);
      }
      at = next;
    }
    at.contents.set(name, new VirtualFile(place, scratch));
  }
  return root;
}

/**
 * A folder that is read.
 * @param {string} name
 * @param {Iterable<[string, Place]>} files
 */
export function sources(name, files) {
  return new PreopenDirectory(name, tree(files, (contents) => new Directory(contents), null).contents);
}

/**
 * A folder with files that are there, into which others are written.
 * @param {string} name
 * @param {Iterable<[string, Place]>} files
 * @param {Scratch} scratch
 */
export function written(name, files, scratch) {
  const folder = new PreopenDirectory(name, new Map());
  folder.dir = tree(files, (contents) => new WrittenFolder(contents, scratch), scratch);
  return folder;
}

/**
 * Where files lie that were written.
 * @param {PreopenDirectory} folder
 * @param {string} path
 * @returns {Place | null}
 */
export function placeOf(folder, path) {
  let at = /** @type {unknown} */ (folder.dir);
  for (const part of path.split("/")) {
    at = at instanceof Directory ? at.contents.get(part) : null;
  }
  return at instanceof VirtualFile ? at.place : null;
}

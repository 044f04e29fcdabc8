/**
 * Opens a backend library: one exported symbol gives the table of functions that the ABI defines.
 * @module
 */
import { MllmError } from "../errors.ts";
import * as abi from "./abi.ts";

type Functions = typeof abi.backendFunctionsNative;
type Buffers = typeof abi.backendFunctions;
type Pointer<F extends Deno.ForeignFunction> = Deno.UnsafeFnPointer<F>["call"];

/** The functions of a backend with addresses as bigints, plus the forms that take JavaScript's own memory. */
export interface NativeLibrary {
  readonly path: string;
  readonly describe: Pointer<Buffers["describe"]>;
  readonly open: Pointer<Buffers["open"]>;
  readonly close: Pointer<Functions["close"]>;
  readonly alloc: Pointer<Functions["alloc"]>;
  readonly free: Pointer<Functions["free"]>;
  readonly mapFile: Pointer<Buffers["mapFile"]>;
  readonly unmapFile: Pointer<Functions["unmapFile"]>;
  readonly supports: Pointer<Buffers["supports"]>;
  readonly packedBytes: Pointer<Buffers["packedBytes"]>;
  readonly submit: Pointer<Functions["submit"]>;
  readonly compile: Pointer<Buffers["compile"]>;
  readonly destroy: Pointer<Functions["destroy"]>;
  readonly run: Pointer<Functions["run"]>;
  readonly runAsync: Pointer<typeof abi.runAsync>;
  readonly profile: Pointer<Buffers["profile"]>;
  readonly lastError: Pointer<Buffers["lastError"]>;
}

/** Libraries stay open for the life of the process: their thread pools are pinned, and closing gains nothing. */
const opened = new Map<string, NativeLibrary>();

/**
 * Opens the library at `path`, once per process.
 * Throws `not_found` (no such file), `unsupported` (no backend, or another ABI version), `io` (permission).
 */
export function openLibrary(path: string): NativeLibrary {
  const known = opened.get(path);
  if (known !== undefined) return known;
  const library = bind(path, table(path));
  opened.set(path, library);
  return library;
}

function table(path: string): Deno.PointerObject {
  let address: Deno.PointerValue;
  try {
    address = Deno.dlopen(path, abi.backendSymbols).symbols.mllm_backend();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) {
      throw new MllmError("io", "loading a backend library is not permitted", {
        file: path,
        next: "Run with --allow-ffi",
        cause,
      });
    }
    const missing = !exists(path);
    throw new MllmError(
      missing ? "not_found" : "unsupported",
      missing ? "the backend library is missing" : `this file is no backend library: ${(cause as Error).message}`,
      { file: path, next: "`deno task setup` builds the libraries", cause },
    );
  }
  if (address === null) throw new MllmError("backend", "mllm_backend returned no table", { file: path });
  const view = new Deno.UnsafePointerView(address);
  const version = view.getUint32(abi.Backend.offset.abiVersion);
  const size = view.getUint32(abi.Backend.offset.size);
  if (version !== abi.abiVersion || size < abi.Backend.size) {
    throw new MllmError("unsupported", `the backend library speaks ABI ${version}, this program ${abi.abiVersion}`, {
      file: path,
      next: "Rebuild it with `deno task setup`",
    });
  }
  return address;
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function bind(path: string, address: Deno.PointerObject): NativeLibrary {
  const view = new Deno.UnsafePointerView(address);
  const { offset } = abi.Backend;
  const fn = <const F extends Deno.ForeignFunction>(at: number, definition: F): Pointer<F> => {
    const pointer = view.getPointer(at);
    if (pointer === null) throw new MllmError("backend", "the table of a backend has an empty entry", { file: path });
    const bound = new Deno.UnsafeFnPointer(pointer as Deno.PointerObject<F>, definition);
    return bound.call.bind(bound) as Pointer<F>;
  };
  const native = abi.backendFunctionsNative;
  const buffers = abi.backendFunctions;
  return {
    path,
    describe: fn(offset.describe, buffers.describe),
    open: fn(offset.open, buffers.open),
    close: fn(offset.close, native.close),
    alloc: fn(offset.alloc, native.alloc),
    free: fn(offset.free, native.free),
    mapFile: fn(offset.mapFile, buffers.mapFile),
    unmapFile: fn(offset.unmapFile, native.unmapFile),
    supports: fn(offset.supports, buffers.supports),
    packedBytes: fn(offset.packedBytes, buffers.packedBytes),
    submit: fn(offset.submit, native.submit),
    compile: fn(offset.compile, buffers.compile),
    destroy: fn(offset.destroy, native.destroy),
    run: fn(offset.run, native.run),
    runAsync: fn(offset.run, abi.runAsync),
    profile: fn(offset.profile, buffers.profile),
    lastError: fn(offset.lastError, buffers.lastError),
  };
}

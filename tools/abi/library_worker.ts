/** A Worker of library_test.ts: opens the library itself, and leaves a device open with sleeping threads. */
import * as abi from "../../packages/core/src/native/abi.ts";

addEventListener("message", (event) => {
  const { path, level } = (event as MessageEvent<{ path: string; level: string }>).data;
  const dylib = Deno.dlopen(path, abi.backendSymbols);
  const table = new Deno.UnsafePointerView(dylib.symbols.mllm_backend()!);
  const definition = abi.backendFunctions.open;
  const pointer = table.getPointer(abi.Backend.offset.open) as Deno.PointerObject<typeof definition>;
  const options = new Uint8Array(abi.OpenOptions.size);
  new DataView(options.buffer).setUint32(abi.OpenOptions.offset.threads, 3, true);
  new TextEncoder().encodeInto(level, options.subarray(abi.OpenOptions.offset.level));
  const handle = new Deno.UnsafeFnPointer(pointer, definition).call(options);
  dylib.close();
  (globalThis as unknown as { postMessage(text: string): void }).postMessage(handle === 0n ? "did not open" : "ok");
});

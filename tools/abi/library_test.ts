/** The library as a foreign program sees it: raw FFI by the generated definitions, nothing of core in between. */
import { afterAll, describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as abi from "../../packages/core/src/native/abi.ts";
import { x86 } from "../../packages/backend-x86/mod.ts";

const path = await x86.library();
const dylib = Deno.dlopen(path, abi.backendSymbols);
const table = new Deno.UnsafePointerView(dylib.symbols.mllm_backend()!);

function bind<const F extends Deno.ForeignFunction>(offset: number, definition: F) {
  return new Deno.UnsafeFnPointer(table.getPointer(offset) as Deno.PointerObject<F>, definition);
}
const { offset } = abi.Backend;
const { backendFunctions: functions } = abi;
const describeBackend = bind(offset.describe, functions.describe);
const open = bind(offset.open, functions.open);
const close = bind(offset.close, functions.close);
const alloc = bind(offset.alloc, functions.alloc);
const free = bind(offset.free, functions.free);
const copyIn = bind(offset.copy, abi.copyFromBuffer);
const copyOut = bind(offset.copy, abi.copyToBuffer);
const mapFile = bind(offset.mapFile, functions.mapFile);
const unmapFile = bind(offset.unmapFile, functions.unmapFile);
const submit = bind(offset.submit, functions.submit);
const compile = bind(offset.compile, functions.compile);
const run = bind(offset.run, functions.run);
const runAsync = bind(offset.run, abi.runAsync);
const destroy = bind(offset.destroy, functions.destroy);
const lastError = bind(offset.lastError, functions.lastError);

function errorText(handle: bigint): string {
  const bytes = new Uint8Array(1024);
  return new TextDecoder().decode(bytes.subarray(0, Number(lastError.call(handle, bytes, 1024n))));
}

function openLevel(level: string, threads: number): bigint {
  const bytes = new Uint8Array(abi.OpenOptions.size);
  new DataView(bytes.buffer).setUint32(abi.OpenOptions.offset.threads, threads, true);
  new TextEncoder().encodeInto(level, bytes.subarray(abi.OpenOptions.offset.level));
  return open.call(bytes);
}

interface Place {
  data: bigint;
  space?: number;
  symbolic?: boolean;
}

/** The record of `out = a + b` over f32 [rows, columns]. */
function addCommand(places: Place[], rows: number, columns: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(abi.Command.size);
  const view = new DataView(bytes.buffer);
  const field = abi.Command.offset;
  view.setUint32(field.op, abi.opTable.add.id, true);
  view.setUint32(field.inputCount, 2, true);
  view.setUint32(field.outputCount, 1, true);
  places.forEach(({ data, space = abi.Space.address, symbolic = false }, i) => {
    const at = i < 2 ? field.inputs + i * abi.TensorDesc.size : field.outputs;
    const desc = abi.TensorDesc.offset;
    view.setBigUint64(at + desc.data, data, true);
    view.setUint32(at + desc.space, space, true);
    view.setUint32(at + desc.dtype, abi.Dtype.f32, true);
    view.setUint32(at + desc.rank, 2, true);
    [rows, columns].forEach((dim, axis) => view.setBigInt64(at + desc.shape + axis * 8, BigInt(dim), true));
    [columns, 1].forEach((stride, axis) => view.setBigInt64(at + desc.strides + axis * 8, BigInt(stride), true));
    if (symbolic) view.setUint32(at + desc.symbolicDims, 1, true);
  });
  return bytes;
}

function registers(tokens: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(abi.Registers.size);
  new DataView(bytes.buffer).setBigInt64(abi.Register.tokens * 8, BigInt(tokens), true);
  return bytes;
}

function readFloats(handle: bigint, address: bigint, count: number): Float32Array {
  const values = new Float32Array(count);
  assertEquals(copyOut.call(handle, values, address, BigInt(values.byteLength)), abi.Status.ok);
  return values;
}

interface Description {
  level: string;
  levels: string[];
  missing: Record<string, string>;
  cores: number;
  memory_bytes: number;
  cpu: string;
}

function describeJson(): Description {
  const bytes = new Uint8Array(8192);
  const length = Number(describeBackend.call(bytes, BigInt(bytes.length)));
  return JSON.parse(new TextDecoder().decode(bytes.subarray(0, length)));
}

describe("the x86 library over raw FFI", () => {
  afterAll(() => dylib.close());

  it("has the version and size that the bindings were made for", () => {
    assertEquals(table.getUint32(offset.abiVersion), abi.abiVersion);
    assertEquals(table.getUint32(offset.size), abi.Backend.size);
  });

  it("describes the machine", () => {
    const { level, levels, missing, cores, memory_bytes, cpu } = describeJson();
    assertEquals(levels[0], "portable");
    assertEquals(levels.at(-1), level);
    assert(cores >= 1 && memory_bytes > 2 ** 26 && cpu.length > 0);
    assertEquals(x86.levels.filter((name) => !levels.includes(name)), Object.keys(missing));
    assert(Object.values(missing).every((reason) => reason.length > 10));
  });

  it("runs an op and a program at every level, on any number of threads", async () => {
    const [rows, columns] = [37, 1000];
    const bytes = rows * columns * 4;
    const a = new Float32Array(rows * columns).map((_, i) => i % 251);
    for (const level of describeJson().levels) {
      for (const threads of [1, 2, 5]) {
        const handle = openLevel(level, threads);
        assert(handle !== 0n, errorText(0n));
        const [x, y] = [alloc.call(handle, BigInt(bytes)), alloc.call(handle, BigInt(bytes))];
        assertEquals(copyIn.call(handle, x, a, BigInt(bytes)), 0);
        assertEquals(submit.call(handle, addCommand([{ data: x }, { data: x }, { data: y }], rows, columns), 1n), 0);
        assertEquals(readFloats(handle, y, a.length), a.map((value) => 2 * value));
        await checkProgram(handle, x, y, a, rows, columns);
        free.call(handle, x);
        free.call(handle, y);
        close.call(handle);
      }
    }
  });

  /** out = (x + x) + x through the arena, for some token counts, synchronous and not. */
  async function checkProgram(handle: bigint, x: bigint, y: bigint, a: Float32Array, rows: number, columns: number) {
    const symbolic = true;
    const input = { data: x, symbolic };
    const middle = { data: 0n, space: abi.Space.arena, symbolic };
    const commands = new Uint8Array([
      ...addCommand([input, input, middle], rows, columns),
      ...addCommand([middle, input, { data: y, symbolic }], rows, columns),
    ]);
    const program = new Uint8Array(abi.ProgramDesc.size);
    const view = new DataView(program.buffer);
    const field = abi.ProgramDesc.offset;
    view.setBigUint64(field.commands, BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(commands))), true);
    view.setBigUint64(field.commandCount, 2n, true);
    view.setBigUint64(field.arenaBytes, BigInt(a.byteLength), true);
    view.setBigUint64(field.tokensMax, BigInt(rows), true);
    const out = new BigUint64Array(1);
    assertEquals(compile.call(handle, program, out), abi.Status.ok, errorText(handle));
    const compiled = out[0];
    commands.fill(0);
    const native = alloc.call(handle, BigInt(abi.Registers.size));
    for (const tokens of [1, rows, 5]) {
      const count = tokens * columns;
      copyIn.call(handle, y, new Float32Array(a.length), BigInt(a.byteLength));
      assertEquals(run.call(handle, compiled, registers(tokens)), 0);
      assertEquals(readFloats(handle, y, a.length), a.map((value, i) => i < count ? 3 * value : 0));
      copyIn.call(handle, y, new Float32Array(a.length), BigInt(a.byteLength));
      copyIn.call(handle, native, registers(tokens), BigInt(abi.Registers.size));
      assertEquals(await runAsync.call(handle, compiled, native), 0);
      assertEquals(readFloats(handle, y, a.length), a.map((value, i) => i < count ? 3 * value : 0));
    }
    assertEquals(run.call(handle, compiled, registers(rows + 1)), abi.Status.invalid);
    assertStringIncludes(errorText(handle), `run: ${rows + 1} tokens, the program takes 1 to ${rows}`);
    destroy.call(handle, compiled);
  }

  it("says what is wrong", () => {
    assertEquals(openLevel("avx9", 1), 0n);
    assertStringIncludes(errorText(0n), 'level "avx9": there is no such level; possible here: portable');
    const handle = openLevel("", 0);
    const x = alloc.call(handle, 64n);
    const bad = addCommand([{ data: x }, { data: x }, { data: 0n }], 2, 4);
    assertEquals(submit.call(handle, bad, 1n), abi.Status.invalid);
    assertEquals(errorText(handle), "add: out has no address");
    const missing = new TextEncoder().encode("/does/not/exist\0");
    assertEquals(mapFile.call(handle, missing, 0n, 0n, new Uint8Array(abi.MappedFile.size)), abi.Status.not_found);
    assertEquals(errorText(handle), "map_file: /does/not/exist: no such file");
    close.call(handle);
    assertEquals(alloc.call(handle, 64n), 0n);
    assertEquals(errorText(handle), "the backend was closed");
    assertEquals(alloc.call(0n, 64n), 0n);
    assertEquals(errorText(0n), "the backend is not open");
  });

  it("maps files", () => {
    const handle = openLevel("", 1);
    const file = Deno.makeTempFileSync();
    Deno.writeTextFileSync(file, "mapped");
    const out = new Uint8Array(abi.MappedFile.size);
    assertEquals(mapFile.call(handle, new TextEncoder().encode(`${file}\0`), 0n, 0n, out), 0);
    const [address, bytes] = new BigUint64Array(out.buffer);
    assertEquals(bytes, 6n);
    const text = new Deno.UnsafePointerView(Deno.UnsafePointer.create(address)!).getArrayBuffer(6);
    assertEquals(new TextDecoder().decode(text), "mapped");
    assertEquals(unmapFile.call(handle, address, bytes), 0);
    assertEquals(mapFile.call(handle, new TextEncoder().encode(`${file}\0`), 1n, 6n, out), abi.Status.io);
    assertStringIncludes(errorText(handle), "the file ends before that range does");
    Deno.removeSync(file);
    close.call(handle);
  });

  it("serves Workers at the same time and survives their end", async () => {
    const source = new URL("./library_worker.ts", import.meta.url);
    const levels = describeJson().levels;
    const results = await Promise.all([0, 1, 2].map((i) =>
      new Promise<string>((resolve) => {
        const worker = new Worker(source, { type: "module" });
        worker.onmessage = ({ data }) => {
          worker.terminate();
          resolve(data);
        };
        worker.postMessage({ path, level: levels[i % levels.length] });
      })
    ));
    assertEquals(results, ["ok", "ok", "ok"]);
  });
});

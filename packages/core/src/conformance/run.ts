/**
 * The conformance suite: every op of the table, on any backend.
 *
 * Each case runs with its inputs dense, padded and transposed, on every given backend (one per thread count); results
 * must be within tolerance of an f64 oracle, have the same bits on all of them, in place, and in pieces.
 * @module
 */
import { describe, it } from "@std/testing/bdd";
import type { Backend } from "../backend.ts";
import { MllmError } from "../errors.ts";
import { byteLength } from "../dtype.ts";
import { type OpName, opTable } from "../native/abi.ts";
import { quantizeRows } from "../ops/linear.ts";
import { Tensor } from "../tensor.ts";
import { tidy } from "../tidy.ts";
import { attention } from "./attention.ts";
import type { CaseMaker, HostTensor, OpCase, Placement, Tolerance } from "./case.ts";
import { elementwise } from "./elementwise.ts";
import { matrix } from "./matrix.ts";
import { rows } from "./rows.ts";

/** A generator of cases for every op; a new row of the op table does not compile without one. */
const generators: Record<OpName, CaseMaker> = { ...elementwise, ...rows, ...matrix, ...attention };

const placements: readonly Placement[] = ["dense", "padded", "transposed"];

/**
 * Registers a test per op. `open` opens the backend with a number of threads and activations "f32" (cases that quantise
 * say so themselves); results with each of `threads` are compared.
 */
export function runConformance(
  name: string,
  open: (threads: number) => Promise<Backend>,
  threads: readonly number[] = [1, 2],
): void {
  describe(`conformance of ${name}`, () => {
    for (const op of Object.keys(opTable) as OpName[]) {
      it(op, async () => {
        const cases = generators[op]();
        const bits = new Map<string, Uint32Array>();
        for (const count of threads) {
          using backend = await open(count);
          cases.forEach((one, i) => checkCase(backend, op, { ...one, name: `${i} (${one.name})` }, bits));
          if (backend.memoryInUse !== 0) throw failure(op, "any", `${backend.memoryInUse} bytes were not freed`);
        }
      });
    }
  });
}

function failure(op: OpName, name: string, problem: string): MllmError {
  return new MllmError("internal", `${op}, case ${name}: ${problem}`);
}

/** Checks one case on one backend. `bits` remembers results of other backends under the same name. */
export function checkCase(backend: Backend, op: OpName, one: OpCase, bits: Map<string, Uint32Array>): void {
  for (const placement of placements) {
    const name = `${one.name} ${placement}`;
    tidy(() => {
      const inputs = one.inputs.map((host, i) => place(backend, host, allowed(one, i, placement)));
      const outputs = one.call(inputs as Tensor[]);
      const values = outputs.map((out) => out.toNumbers());
      const expected = one.expect(one.inputs.map((host) => host?.values as ArrayLike<number>), values);
      expected.forEach((wanted, i) =>
        compare(values[i], wanted, one.tolerance, (problem) => failure(op, name, `output ${i}: ${problem}`))
      );
      const made = bitsOf(outputs);
      const known = bits.get(name);
      if (known !== undefined && !same(known, made)) {
        throw failure(op, name, "the bits depend on the number of threads");
      }
      bits.set(name, made);
      if (one.quantized !== undefined) checkQuantized(op, one, inputs as Tensor[], outputs[outputs.length - 1]);
      if (placement === "dense") checkForms(backend, op, one, inputs as Tensor[], outputs[0]);
    });
  }
}

/** In place, row by row and in chunks: the same bits as the whole. */
function checkForms(backend: Backend, op: OpName, one: OpCase, inputs: Tensor[], whole: Tensor): void {
  const bits = bitsOf([whole]);
  for (const index of opTable[op].inPlace as readonly number[]) {
    if (one.inputs[index]!.shape.join() !== whole.shape.join()) continue;
    const fresh = one.inputs.map((host) => place(backend, host, "dense")) as Tensor[];
    if (!same(bitsOf(one.call(fresh, fresh[index]).slice(0, 1)), bits)) {
      throw failure(op, one.name, `in place of input ${index} gives other bits`);
    }
  }
  if (one.rowInputs !== undefined && (whole.shape[0] as number) > 1) {
    const picked = Math.floor((whole.shape[0] as number) / 2);
    const row = (tensor: Tensor, i: number) => one.rowInputs!.includes(i) ? tensor.narrow(0, picked, 1) : tensor;
    const alone = one.call(inputs.map((tensor, i) => tensor && row(tensor, i)))[0];
    if (!same(bitsOf([alone]), bitsOf([whole.narrow(0, picked, 1)]))) {
      throw failure(op, one.name, "a row alone gives other bits");
    }
  }
  const pieces = one.chunks?.(inputs);
  if (pieces !== undefined && !same(bitsOf(pieces), bits)) {
    throw failure(op, one.name, "in chunks it gives other bits");
  }
}

/** Quantised on the way or afterwards: the same bytes. */
function checkQuantized(op: OpName, one: OpCase, inputs: Tensor[], whole: Tensor): void {
  const rows = whole.reshape(whole.shape[0], -1);
  const n = rows.shape[1] as number;
  const bytes = one.quantized!(inputs).toBytes();
  const wanted = quantizeRows(rows).toBytes();
  const rowBytes = byteLength("q8a", [1, n]);
  const used = n + n / 32 * 4 + n / 16 * 2; // what follows up to the row's end is padding
  for (let i = 0; i < bytes.length; i++) {
    if (i % rowBytes < used && bytes[i] !== wanted[i]) throw failure(op, one.name, `quantised, byte ${i} differs`);
  }
}

/** Bits of results, one after the other; NaNs are alike. */
function bitsOf(tensors: readonly Tensor[]): Uint32Array {
  const parts = tensors.map((tensor) => Float32Array.from(tensor.toNumbers()));
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  const words = new Uint32Array(all.buffer);
  for (let i = 0; i < all.length; i++) if (Number.isNaN(all[i])) words[i] = 0x7fc00000;
  return words;
}

function same(a: Uint32Array, b: Uint32Array): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}

/** How an input may lie when the others lie as `placement` says. */
function allowed(one: OpCase, index: number, placement: Placement): Placement {
  if (one.dense?.includes(index)) return "dense";
  return placement === "transposed" && one.wholeRows?.includes(index) ? "padded" : placement;
}

function compare(
  actual: ArrayLike<number>,
  wanted: ArrayLike<number>,
  tolerance: Tolerance,
  fail: (problem: string) => MllmError,
): void {
  if (actual.length !== wanted.length) throw fail(`${actual.length} values, not ${wanted.length}`);
  if ("rms" in tolerance) {
    const error = relativeError(actual, wanted);
    if (!(error <= tolerance.rms)) throw fail(`its relative error is ${error}, more than ${tolerance.rms}`);
    return;
  }
  const { abs, rel } = tolerance;
  for (let i = 0; i < wanted.length; i++) {
    const [a, b] = [actual[i], Math.abs(wanted[i]) > 3.5e38 ? Math.fround(wanted[i]) : wanted[i]];
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    if (!(Math.abs(a - b) <= abs + rel * Math.abs(b))) throw fail(`value ${i} is ${a}, not ${b}`);
  }
}

/** Root of the mean square of actual - wanted, by that of wanted. */
function relativeError(actual: ArrayLike<number>, wanted: ArrayLike<number>): number {
  let [lost, square] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    lost += (actual[i] - wanted[i]) ** 2;
    square += wanted[i] ** 2;
  }
  return Math.sqrt(lost / square);
}

/** Puts a host tensor on the backend. */
function place(backend: Backend, host: HostTensor | undefined, placement: Placement): Tensor | undefined {
  if (host === undefined) return undefined;
  const { shape, dtype, values } = host;
  if (host.bytes !== undefined) return Tensor.from(backend, host.bytes, shape, dtype);
  const array = dtype === "i32" ? Int32Array.from(values) : Float32Array.from(values);
  if (placement === "dense") return Tensor.from(backend, array, shape, dtype);
  const last = shape.length - 1;
  if (placement === "padded" || last === 0) {
    const base = Tensor.from(backend, pad(array, shape[last], 1, 2), [...shape.slice(0, -1), shape[last] + 3], dtype);
    return base.narrow(last, 1, shape[last]);
  }
  const [a, b, ...rest] = shape;
  const inner = rest.reduce((x, y) => x * y, 1);
  const exchanged = array.slice();
  for (let i = 0; i < a; i++) {
    for (let j = 0; j < b; j++) {
      exchanged.set(array.subarray((i * b + j) * inner, (i * b + j + 1) * inner), (j * a + i) * inner);
    }
  }
  return Tensor.from(backend, exchanged, [b, a, ...rest], dtype).transpose(0, 1);
}

/** Rows of n values with others (which must not be read) before and after. */
function pad<T extends Float32Array | Int32Array>(values: T, n: number, before: number, after: number): T {
  const rowCount = values.length / n;
  const out = new (values.constructor as new (length: number) => T)(rowCount * (n + before + after)).fill(77) as T;
  for (let i = 0; i < rowCount; i++) out.set(values.subarray(i * n, (i + 1) * n), i * (n + before + after) + before);
  return out;
}

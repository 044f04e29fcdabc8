import { assertThrows } from "@std/assert";
import { afterAll, beforeAll, describe } from "@std/testing/bdd";
import { leakChecked, openTestBackend } from "../../testdata/backend.ts";
import type { Backend } from "../backend.ts";
import { MllmError } from "../errors.ts";
import * as ops from "../ops.ts";
import type { Tensor } from "../tensor.ts";
import { attention } from "./attention.ts";
import type { OpCase, Tolerance } from "./case.ts";
import { checkCase } from "./run.ts";

describe("conformance suite", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openTestBackend();
  });
  afterAll(() => backend[Symbol.dispose]());

  const check = leakChecked(() => backend);
  const run = (one: OpCase) => checkCase(backend, "attention", one, new Map());

  check("bounds each element, or the error of the whole", () => {
    const wanted = [3, -4, 0, 12];
    const given = (values: readonly number[], tolerance: Tolerance) => () =>
      run({
        name: "copy",
        inputs: [{ dtype: "f32", shape: [4], values }],
        call: ([x]) => [ops.copy(x)],
        expect: () => [wanted],
        tolerance,
      });
    given(wanted, { rms: 0 })();
    given([3, -4, 1.25, 12], { rms: 0.1 })(); // 1.25 of 13
    given([3, -4, 0.125, 12], { abs: 0.125, rel: 0 })();
    for (const value of [1.5, NaN]) {
      assertThrows(given([3, -4, value, 12], { rms: 0.1 }), MllmError, "relative error");
      assertThrows(given([3, -4, value, 12], { abs: 0.125, rel: 0 }), MllmError, "value 2");
    }
  });

  const disturbances: Record<string, (inputs: Tensor[]) => Tensor[]> = {
    "queries that are 10 % too large": ([q, ...rest]) => [ops.mulConst(q, 1.1), ...rest],
    "keys that are 10 % too large": ([q, k, ...rest]) => [q, ops.mulConst(k, 1.1), ...rest],
    "values that are 5 % too large": ([q, k, v, ...rest]) => [q, k, ops.mulConst(v, 1.05), ...rest],
  };
  for (const [name, disturb] of Object.entries(disturbances)) {
    check(`finds, in int8, ${name}`, () => {
      for (const one of attention.attention().filter(({ tolerance }) => "rms" in tolerance)) {
        const disturbed = { ...one, call: (inputs: Tensor[]) => one.call(disturb(inputs)) };
        assertThrows(() => run(disturbed), MllmError, "relative error");
      }
    });
  }
});

import type { Random } from "../random_model/random.ts";
import { mutateBytes } from "./mutate_bytes.ts";

/** Pieces of Jinja that cost time or memory, recurse, or end in the middle. */
const pieces: readonly string[] = [
  "{% for i in range(99999) %}{{ i }}{% endfor %}",
  "{% for a in range(3000) %}{% for b in range(3000) %}{{ a * b }}{% endfor %}{% endfor %}",
  "{% for i in range(1000000000) %}{% endfor %}",
  "{{ 'x' * 1000000000 }}",
  "{{ [1] * 1000000000 }}",
  "{% set s = 'ab' %}{% for i in range(64) %}{% set s = s + s %}{% endfor %}",
  "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
  "{% set ns = namespace(l=[1]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l|length }}",
  "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
  "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
  "{% set ns = namespace(a=none) %}{% set ns.a = ns %}{{ ns|tojson }}",
  "{% set a = [] %}{{ a.append(a) }}{{ a }}{{ a|tojson }}",
  "{{ messages|tojson(indent=1000000) }}",
  "{{ messages|string|upper|lower|title|capitalize|trim|length }}",
  "{{ messages.constructor.constructor('return 1')() }}",
  "{{ messages.__class__.__mro__ }}",
  "{{ ''.constructor }}{{ messages['__proto__'] }}{% set messages.__proto__ = 1 %}",
  "{{ 1 / 0 }}{{ 1 % 0 }}{{ 1 // 0 }}{{ 10 ** 1000 }}",
  "{{ undefined_thing.a.b }}",
  "{{ messages[99].content }}{{ messages[-99] }}{{ messages[1.5] }}{{ messages['x'] }}",
  "{{ 'abc'[::0] }}{{ 'abc'[::-1] }}{{ 'abc'[1e9:] }}",
  "{{ raise_exception('no\nno') }}",
  "{{ raise_exception() }}",
  "{{ strftime_now('%'*1000) }}",
  "{% if %}",
  "{% for %}",
  "{% endfor %}",
  "{{",
  "{%",
  "{#",
  "{% raw %}",
  "{% set x = %}",
  "{% include 'x' %}",
  "{% break %}{% continue %}",
  "{% filter upper %}x{% endfilter %}",
  "{% call f() %}{% endcall %}",
  "{% generation %}x{% endgeneration %}",
  "{{ 'x'|nosuchfilter }}",
  "{{ 'x' is nosuchtest }}",
  "{{ range(5, 1, -1)|list }}{{ range(0, 10, 0)|list }}{{ range('a') }}",
  "{{ [3, 'a', none]|sort }}{{ {}|dictsort }}{{ messages|first|items }}",
  "{{ 'a'.split('') }}{{ 'a'.replace('', 'b') }}{{ 'x'.join(messages) }}",
];

function nest(random: Random): string {
  const n = [5, 50, 500, 20_000][random.below(4)];
  switch (random.below(6)) {
    case 0:
      return `{{ ${"(".repeat(n)}1${")".repeat(n)} }}`;
    case 1:
      return `{{ ${"[".repeat(n)}${"]".repeat(n)} }}`;
    case 2:
      return `${"{% if true %}".repeat(n)}x${"{% endif %}".repeat(n)}`;
    case 3:
      return `{{ ${"not ".repeat(n)}x }}`;
    case 4:
      return `{{ a${".b".repeat(n)} }}{{ 1${" + 1".repeat(n)} }}`;
    default:
      return `{{ ${"-".repeat(n)}1 }}{{ "${"x".repeat(n)}"${"|trim".repeat(Math.min(n, 2000))} }}`;
  }
}

/** A template with pieces put in, or bytes changed. */
export function mutateTemplate(random: Random, source: string, other: string): Uint8Array {
  const utf8 = new TextEncoder();
  if (random.below(2) === 0) return mutateBytes(random, utf8.encode(source), utf8.encode(other));
  let out = source;
  for (let i = random.below(3); i >= 0; i--) {
    const at = random.below(3) === 0 ? 0 : random.below(out.length + 1);
    const piece = random.below(5) === 0 ? nest(random) : pieces[random.below(pieces.length)];
    out = out.slice(0, at) + piece + out.slice(at);
  }
  return utf8.encode(out);
}

import { describe, it } from "@std/testing/bdd";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MllmError } from "@mllm/core";
import { goldenPath, skipWithout } from "../../../../tools/testing/golden.ts";
import { testdata } from "../../testing/testdata.ts";
import { ChatTemplate } from "./chat_template.ts";

const render = (source: string, variables: Record<string, unknown> = {}) =>
  new ChatTemplate(source).render({ messages: [], ...variables });

describe("ChatTemplate", () => {
  const same: [template: string, output: string, variables?: Record<string, unknown>][] = [
    ["{{ true }} {{ none }} {{ 2.0 }} {{ 1e3 }} {{ 2.5e-1 }} {{ 1e16 }} {{ x }}|", "True None 2.0 1000.0 0.25 1e+16 |"],
    ["{{ ['a', \"it's\", 1, none, {'k': (1, 2)}] }}", "['a', \"it's\", 1, None, {'k': (1, 2)}]"],
    ["{{ {'a': 1}.items() | list }}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "[('a', 1)]a1"],
    ["{{ -7 % 3 }} {{ 7 % -3 }} {{ 6 % 3 }} {{ 2 ** 5 }}", "2 -2 0 32"],
    [
      "{{ x | trim }}{{ x | list }}{{ x | join(',') }}{{ x | length }}{% for a in x %}{% else %}none{% endfor %}",
      "[]0none",
    ],
    ["{{ 'a' ~ 1 ~ none }} {{ [1, none, 'x'] | join('-') }} {{ 5 | string }}", "a1None 1-None-x 5"],
    [
      "{{ 1 == '1' }} {{ 1 == true }} {{ [1] == [1.0] }} {{ none == x }} {{ 'a' != 'a' }}",
      "False True True False False",
    ],
    ["{{ '%s-%d%%' | format('a', 3) }} {{ [1, 2] | sum }} {{ [1, 2] | count }}", "a-3% 3 2"],
    ["{{ d | tojson }} {{ d | tojson(indent=1) }}", '{"é<": [1, null]} {\n "é<": [\n  1,\n  null\n ]\n}', {
      d: { "é<": [1, null] },
    }],
    [
      "{% for c in 'ab' %}{{ c }}.{% endfor %}{% for i in [0, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
      "a.b.0",
    ],
    ["{{ strftime_now('%d %b %Y %H:%M') }}", "05 Mar 2024 06:07", { now: new Date(2024, 2, 5, 6, 7) }],
    ["{% generation %}{{ enable_thinking }}{% endgeneration %}", "False", { enable_thinking: false }],
    ["{{ bos_token }}{{ tools }}{{ add_generation_prompt }}", "<s>NoneTrue", {
      bosToken: "<s>",
      addGenerationPrompt: true,
    }],
  ];
  for (const [template, output, variables] of same) {
    it(template, () => assertEquals(render(template, variables), output));
  }

  it("throws the template's own message", () => {
    const error = assertThrows(() => render("{{ raise_exception('no system role') }}"), MllmError, "no system role");
    assertEquals(error.code, "invalid_argument");
  });
  it("leaves a loop by continue as often as it likes", () => {
    assertEquals(render("{% for i in range(5000) %}{% continue %}{% endfor %}ok"), "ok");
  });

  const hostile: Record<string, string> = {
    "long range": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
    "doubling text": "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling list": "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by replace":
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "wide indent": "{{ 'a\nb' | indent(10 ** 9) }}",
    "wide json": "{{ [1] | tojson(indent=10 ** 9) }}",
    "None in a loop": "{% for i in none %}{% endfor %}",
    "unknown filter": "{{ 'x' | frobnicate }}",
    "attribute of nothing": "{{ messages[0].content.x.y() }}",
  };
  const shared = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}" +
    "{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
  for (
    const use of [
      "ns.x == ns.y",
      "ns.x != ns.y",
      "ns.x",
      "ns.x ~ 1",
      "ns.x + 'a'",
      "ns.x | tojson",
      "ns.x | string",
      "ns.x | join",
      "'%s' | format(ns.x)",
      "raise_exception(ns.x)",
    ]
  ) hostile[`shared lists: ${use}`] = `${shared}{{ ${use} }}`;
  hostile["a mapping in itself"] = "{% set ns = namespace() %}{% set ns.a = ns %}{% set ns.b = ns %}{{ ns == ns }}";
  for (const [name, template] of Object.entries(hostile)) {
    it(`ends with an error: ${name}`, () => {
      const start = performance.now();
      assertThrows(() => render(template), MllmError, "template");
      assert(performance.now() - start < 20_000);
    });
  }
  for (
    const source of [
      "{% if %}",
      "{{",
      "{% for x in y %}",
      "{{ 'a",
      "{# ",
      "{% macro %}",
      "(".repeat(9) + "{{" + "(".repeat(50_000),
    ]
  ) {
    it(`can't be read: ${source.slice(0, 20)}`, () => {
      assertEquals(assertThrows(() => new ChatTemplate(source), MllmError, "template").code, "invalid_file");
    });
  }
  it("is bounded in size", () => {
    assertThrows(() => new ChatTemplate("x".repeat(600_000)), MllmError, "too large");
    assertThrows(() => new ChatTemplate(" ".repeat(100_000)), MllmError, "white space");
  });
});

interface Case {
  template: string;
  conversation: string;
  messages: unknown[];
  kwargs: Record<string, unknown>;
  tools: unknown[] | "TOOLS" | null;
  bos_token: string;
  eos_token: string;
  output?: string;
  error?: string;
}

/** Our own templates, with what Python's Jinja made of them; and the reference data, which has many more. */
const sources = [
  { name: "copies", folder: testdata("chat"), casesMin: 27 },
  { name: "the reference", folder: goldenPath("chat"), casesMin: 500 },
];

function checkCase(template: ChatTemplate, one: Case, allTools: unknown[]): void {
  const { messages, kwargs, tools, bos_token, eos_token, output, error } = one;
  const run = () =>
    template.render({
      messages,
      tools: tools === "TOOLS" ? allTools : tools,
      bosToken: bos_token,
      eosToken: eos_token,
      now: new Date(2024, 6, 26, 13, 5, 9),
      ...kwargs,
    });
  if (error === undefined) assertEquals(run(), output);
  else assertThrows(run, MllmError, error.replace(/^\w+: /, ""));
}

for (const { name, folder, casesMin } of sources) {
  describe(`chat templates against Python's Jinja: ${name}`, () => {
    it(
      "finds the cases",
      { skip: skipWithout(folder) },
      () => assert(cases.length >= casesMin, `${cases.length} cases`),
    );
    const empty: { cases: Case[]; TOOLS: unknown[] } = { cases: [], TOOLS: [] };
    const { cases, TOOLS } = folder === undefined
      ? empty
      : JSON.parse(Deno.readTextFileSync(`${folder}/chat_golden.json`)) as typeof empty;
    for (const [name, group] of Map.groupBy(cases, ({ template }) => template)) {
      it(`${name}: ${group.length} renders`, () => {
        const template = new ChatTemplate(Deno.readTextFileSync(`${folder}/templates/${name}.jinja`));
        for (const one of group) checkCase(template, one, TOOLS);
      });
    }
  });
}

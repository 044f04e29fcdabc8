/** Charts as SVG: speeds of the engines side by side, and each op under the machine's roofline. */
import type { Machine, Peaks } from "./machine.ts";
import type { RooflineOp } from "./roofline.ts";
import { modelName, type ModelResult } from "./results.ts";

const WIDTH = 880;
const INK = "#1f2933";
const FAINT = "#7b8794";
const GRID = "#e4e7eb";
/** Ours first; the others in the order in which they come. */
const COLOURS = ["#0b69a3", "#f0b429", "#8ac4a4", "#c99cc9", "#9aa5b1"];

const escape = (text: string) =>
  text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);

interface TextStyle {
  size?: number;
  anchor?: "start" | "middle" | "end";
  fill?: string;
  weight?: number;
  transform?: string;
}

function text(x: number, y: number, content: string, style: TextStyle = {}): string {
  const { size = 12, anchor = "start", fill = INK, weight = 400, transform } = style;
  const turn = transform === undefined ? "" : ` transform="${transform}"`;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" text-anchor="${anchor}" fill="${fill}" ` +
    `font-weight="${weight}"${turn}>${escape(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, stroke: string, more = ""): string {
  const [a, b, c, d] = [x1, y1, x2, y2].map((value) => value.toFixed(1));
  return `<line x1="${a}" y1="${b}" x2="${c}" y2="${d}" stroke="${stroke}"${more === "" ? "" : ` ${more}`}/>`;
}

function rect(x: number, y: number, width: number, height: number, fill: string): string {
  return `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" ` +
    `rx="2" fill="${fill}"/>`;
}

function svg(height: number, title: string, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ` +
    `role="img" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif">\n` +
    `<title>${escape(title)}</title>\n<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>\n${
      parts.join("\n")
    }\n</svg>\n`;
}

/** Bars of one test: a row per engine, lengths in proportion to the fastest. */
function testBars(model: ModelResult, test: string, left: number, top: number, width: number): string[] {
  const most = Math.max(...model.engines.map(({ speeds }) => speeds[test].median));
  const ours = model.engines.find(({ engine }) => engine === "mllm")?.speeds[test].median;
  const label = 104;
  const room = width - label - 96;
  return [
    text(left, top + 12, `${test}, tokens per second`, { fill: FAINT }),
    ...model.engines.flatMap(({ engine, speeds }, i) => {
      const { median } = speeds[test];
      const y = top + 20 + i * 24;
      const length = Math.max(2, median / most * room);
      const against = engine === "mllm" || ours === undefined ? "" : `  (${(ours / median).toFixed(2)}×)`;
      return [
        text(left + label - 8, y + 14, engine, { anchor: "end", weight: engine === "mllm" ? 600 : 400 }),
        rect(left + label, y, length, 18, COLOURS[i % COLOURS.length]),
        text(left + label + length + 6, y + 14, `${median.toFixed(median < 100 ? 1 : 0)}${against}`, {
          weight: engine === "mllm" ? 600 : 400,
        }),
      ];
    }),
  ];
}

/** A panel per model and test, two side by side; in brackets how many times as fast mllm is. */
export function speedChart(models: readonly ModelResult[], machine: Machine): string {
  const parts = [
    text(24, 34, "Tokens per second", { size: 18, weight: 600 }),
    text(
      24,
      54,
      `${machine.cpu}, ${models[0].peaks.threads} threads; medians; (n×): mllm is n times as fast`,
      {
        fill: FAINT,
      },
    ),
  ];
  let top = 84;
  for (const model of models) {
    const tests = Object.keys(model.engines[0].speeds);
    parts.push(
      text(24, top, modelName(model, machine), { size: 14, weight: 600 }),
      line(24, top + 8, WIDTH - 24, top + 8, GRID),
    );
    const rowHeight = 34 + model.engines.length * 24;
    tests.forEach((test, i) => {
      parts.push(...testBars(model, test, 24 + (i % 2) * 424, top + 18 + (i >> 1) * rowHeight, 400));
    });
    top += 44 + Math.ceil(tests.length / 2) * rowHeight;
  }
  return svg(top - 16, "Tokens per second of mllm and other engines", parts);
}

/** A logarithmic axis from a power of ten to another. */
class LogAxis {
  constructor(readonly least: number, readonly most: number, readonly from: number, readonly to: number) {}

  at(value: number): number {
    const clamped = Math.min(10 ** this.most, Math.max(10 ** this.least, value));
    return this.from + (Math.log10(clamped) - this.least) / (this.most - this.least) * (this.to - this.from);
  }

  get ticks(): number[] {
    return Array.from({ length: this.most - this.least + 1 }, (_, i) => 10 ** (this.least + i));
  }
}

const tickText = (value: number) => value >= 1 ? value.toLocaleString("en") : String(Number(value.toPrecision(1)));

function axes(x: LogAxis, y: LogAxis): string[] {
  return [
    ...x.ticks.flatMap((value) => [
      line(x.at(value), y.from, x.at(value), y.to, GRID),
      text(x.at(value), y.from + 18, tickText(value), { anchor: "middle", fill: FAINT }),
    ]),
    ...y.ticks.flatMap((value) => [
      line(x.from, y.at(value), x.to, y.at(value), GRID),
      text(x.from - 8, y.at(value) + 4, tickText(value), { anchor: "end", fill: FAINT }),
    ]),
    text((x.from + x.to) / 2, y.from + 40, "operations per byte", { anchor: "middle" }),
    text(20, (y.from + y.to) / 2, "GOPS", { anchor: "middle", transform: `rotate(-90 20 ${(y.from + y.to) / 2})` }),
  ];
}

function roofs(x: LogAxis, y: LogAxis, peaks: Peaks): string[] {
  const bandwidth = peaks.read_gb_per_s;
  const { tiles_bf16_gops = 0, tiles_int8_gops = 0 } = peaks;
  const top = Math.max(peaks.int8_gops, peaks.f32_gflops, tiles_bf16_gops, tiles_int8_gops);
  const start = 10 ** x.least;
  const level = (rate: number, name: string, dash: string) =>
    rate <= 0 ? [] : [
      line(x.at(rate / bandwidth), y.at(rate), x.to, y.at(rate), INK, `stroke-width="1.5"${dash}`),
      text(x.at(rate / bandwidth) + 24, y.at(rate) - 6, `${name} ${rate.toFixed(0)} GOPS`),
    ];
  const steep = [x.at(start), y.at(start * bandwidth), x.at(top / bandwidth), y.at(top)];
  const angle = Math.atan2(steep[3] - steep[1], steep[2] - steep[0]) * 180 / Math.PI;
  const [labelX, labelY] = [steep[0] + 46, steep[1] + 46 * Math.tan(angle * Math.PI / 180) - 8];
  return [
    line(steep[0], steep[1], steep[2], steep[3], INK, 'stroke-width="1.5"'),
    text(labelX, labelY, `memory ${bandwidth.toFixed(1)} GB/s`, {
      transform: `rotate(${angle.toFixed(1)} ${labelX.toFixed(1)} ${labelY.toFixed(1)})`,
    }),
    ...level(tiles_int8_gops, "int8 tiles", ""),
    ...level(tiles_bf16_gops, "bf16 tiles", ""),
    ...level(peaks.int8_gops, "int8", ""),
    ...level(peaks.f32_gflops, "f32", ' stroke-dasharray="5 4"'),
  ];
}

/** Labels that would cover one another move apart: the next free line below. */
function placeLabels(points: readonly { x: number; y: number; label: string }[]): string[] {
  const taken: { x: number; y: number; width: number }[] = [];
  return points.map(({ x, y, label }) => {
    const width = label.length * 6;
    let at = y + 4;
    const hits = () =>
      taken.some((other) => Math.abs(other.y - at) < 12 && x < other.x + other.width && other.x < x + width);
    for (let tries = 0; tries < 40 && hits(); tries++) at += 12;
    taken.push({ x, y: at, width });
    return text(x, at, label, { size: 11 });
  });
}

const radius = ({ share }: RooflineOp) => 3 + 14 * Math.sqrt(share);

/** Every op with arithmetic as a disc: its area grows with its share of the time. */
export function rooflineChart(model: ModelResult, machine: Machine): string {
  const { peaks } = model;
  const height = 600;
  const x = new LogAxis(-2, 3, 76, WIDTH - 24);
  const y = new LogAxis(-1, 4, height - 60, 84);
  const shown = model.roofline.flatMap(({ test, ops }, i) =>
    ops.filter(({ gops, share }) => gops > 0 && share >= 0.002).map((op) => ({
      test,
      op,
      colour: COLOURS[i % COLOURS.length],
    }))
  ).sort((a, b) => b.op.share - a.op.share);
  const discs = shown.map(({ op, colour }) =>
    `<circle cx="${x.at(op.intensity).toFixed(1)}" cy="${y.at(op.gops).toFixed(1)}" r="${radius(op).toFixed(1)}" ` +
    `fill="${colour}" fill-opacity="0.75" stroke="#ffffff"/>`
  );
  const labels = placeLabels(
    shown.filter(({ op }) => op.share >= 0.06).map(({ op }) => ({
      x: x.at(op.intensity) + radius(op) + 4,
      y: y.at(op.gops),
      label: `${op.op} ${op.kind}`,
    })),
  );
  const legend = model.roofline.flatMap(({ test }, i) => [
    `<circle cx="${30 + i * 90}" cy="70" r="6" fill="${COLOURS[i % COLOURS.length]}" fill-opacity="0.75"/>`,
    text(42 + i * 90, 74, test),
  ]);
  return svg(height, `Roofline of ${model.type}`, [
    text(24, 30, `${model.type} under the machine's roofline`, { size: 18, weight: 600 }),
    text(
      24,
      50,
      `${machine.cpu}, level ${peaks.level}, ${peaks.threads} threads; a disc's area: share of the time`,
      {
        fill: FAINT,
      },
    ),
    ...axes(x, y),
    ...roofs(x, y, peaks),
    ...discs,
    ...labels,
    ...legend,
  ]);
}

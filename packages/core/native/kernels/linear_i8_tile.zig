//! The register tile of linear_i8.zig: some rows of activations times the columns of a panel or more, all blocks of K.
//!
//! Activations come as q8a rows or, of many rows, as records in the order of use; weights as a packed panel, unpacked
//! into registers by each tile, or from scratch, unpacked once for all tiles. The float operations are always the same.

const std = @import("std");
const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");

const F = dot.F;
const Form = packed_weights.Form;
const Kind = packed_weights.Kind;
const Scheme = dot.Scheme;

/// Runs all blocks: `x` is Rows or Records, `w` is Panels or Unpacked.
pub inline fn run(comptime f: Form, comptime rows: usize, blocks: usize, x: anytype, w: anytype) [rows][@TypeOf(w).vectors]F {
    @setEvalBranchQuota(20_000);
    const X = @TypeOf(x);
    const W = @TypeOf(w);
    var sums: [rows][W.vectors]F = @splat(@splat(@splat(0)));
    // Of 16 registers three rows leave some to weights and products.
    const acc = if (dot.registers == 16 and rows > 3) hidden(&sums) else &sums;
    for (0..blocks) |b| {
        w.prefetch(b);
        inline for (0..W.vectors / W.together) |part| {
            const weights = w.block(b, part);
            inline for (0..comptime f.groups()) |g| {
                const start = if (comptime startFactor(X.scheme, f) != 0) x.starts(b, g) else {};
                const steps = comptime X.scheme.steps(f.group);
                const codes = x.codes(b, g);
                const ints: [rows][W.together]dot.I = if (comptime rows == 1 and W.has_nibbles)
                    .{.{dot.tileOfNibbles(start, weights.pairs, codes)}}
                else
                    dot.tile(X.scheme, f.code_max, steps, rows, W.together, start, weights.codes(g), codes);
                inline for (0..W.together) |i| inline for (0..rows) |m| {
                    const sum = &acc[m][part * W.together + i];
                    const scale = weights.scale(g, i) * @as(F, @splat(x.scale(b, m)));
                    sum.* = dot.fma(@floatFromInt(ints[m][i]), scale, sum.*);
                    if (f.has_min) sum.* = dot.fma(weights.min(g, i), @splat(x.scaledSum(b, m, g)), sum.*);
                };
            }
        }
    }
    return sums;
}

/// The same pointer, of which the compiler can't know that nobody else has it: what lies there stays in memory.
inline fn hidden(pointer: anytype) @TypeOf(pointer) {
    return asm volatile (""
        : [out] "=r" (-> @TypeOf(pointer)),
        : [in] "0" (pointer),
        : .{ .memory = true });
}

fn startFactor(comptime scheme: Scheme, comptime f: Form) i16 {
    return scheme.startFactor(f.zero, f.code_max);
}

/// q8a rows as they are.
pub fn Rows(comptime f: Form, comptime rows: usize) type {
    return struct {
        const Self = @This();
        pub const scheme: Scheme = .fours;

        rows: [rows]quantize.Row,

        inline fn sum(self: Self, b: usize, comptime m: usize, comptime g: usize) i32 {
            const sums = self.rows[m].sums + b * 2;
            return if (f.group == 32) @as(i32, sums[0]) + sums[1] else sums[g];
        }

        pub inline fn starts(self: Self, b: usize, comptime g: usize) [rows]i32 {
            var all: [rows]i32 = undefined;
            inline for (0..rows) |m| all[m] = self.sum(b, m, g) * startFactor(scheme, f);
            return all;
        }

        pub inline fn scale(self: Self, b: usize, comptime m: usize) f32 {
            return self.rows[m].scales[b];
        }

        pub inline fn scaledSum(self: Self, b: usize, comptime m: usize, comptime g: usize) f32 {
            return self.scale(b, m) * @as(f32, @floatFromInt(self.sum(b, m, g)));
        }

        const Codes = struct {
            from: [rows][*]const u8,
            pub inline fn at(self: Codes, comptime m: usize, comptime s: usize) i32 {
                return std.mem.readInt(i32, (self.from[m] + s * 4)[0..4], .little);
            }
        };

        pub inline fn codes(self: Self, b: usize, comptime g: usize) Codes {
            var all: Codes = undefined;
            inline for (0..rows) |m| all.from[m] = @ptrCast(self.rows[m].codes + b * 32 + g * f.group);
            return all;
        }
    };
}

/// A block of some rows in the order of use.
pub fn Record(comptime f: Form, comptime rows: usize) type {
    return extern struct {
        const Self = @This();
        const scheme = Scheme.ofMany(f.code_max);
        const start_groups = if (startFactor(scheme, f) == 0) 0 else f.groups();

        codes: [rows][scheme.steps(32)]i32,
        scales: [rows]f32,
        starts: [start_groups][rows]i32,
        scaled_sums: [if (f.has_min) f.groups() else 0][rows]f32,

        /// Fills in block `b` of row `m`.
        pub fn set(self: *Self, m: usize, x: quantize.Row, b: usize) void {
            self.codes[m] = scheme.activations(x.codes[b * 32 ..][0..32].*);
            self.scales[m] = x.scales[b];
            const row: Rows(f, 1) = .{ .rows = .{x} };
            inline for (0..start_groups) |g| {
                const codes: @Vector(f.group, i8) = x.codes[b * 32 + g * f.group ..][0..f.group].*;
                self.starts[g][m] = if (scheme == .fours) row.starts(b, g)[0] else scheme.start(startFactor(scheme, f), codes);
            }
            inline for (&self.scaled_sums, 0..) |*sums, g| sums[m] = row.scaledSum(b, 0, g);
        }
    };
}

pub fn Records(comptime f: Form, comptime rows: usize) type {
    return struct {
        const Self = @This();
        pub const scheme = Record(f, rows).scheme;

        records: [*]const Record(f, rows),

        pub inline fn starts(self: Self, b: usize, comptime g: usize) [rows]i32 {
            return self.records[b].starts[g];
        }

        pub inline fn scale(self: Self, b: usize, comptime m: usize) f32 {
            return self.records[b].scales[m];
        }

        pub inline fn scaledSum(self: Self, b: usize, comptime m: usize, comptime g: usize) f32 {
            return self.records[b].scaled_sums[g][m];
        }

        fn Codes(comptime g: usize) type {
            return struct {
                from: *const [rows][scheme.steps(32)]i32,
                pub inline fn at(self: @This(), comptime m: usize, comptime s: usize) i32 {
                    return self.from[m][g * scheme.steps(f.group) + s];
                }
            };
        }

        pub inline fn codes(self: Self, b: usize, comptime g: usize) Codes(g) {
            return .{ .from = &self.records[b].codes };
        }
    };
}

/// Bytes between what is read and what is asked for, into the first cache and into the second; 0 for nothing.
pub const Ahead = struct { first: usize = 0, second: usize = 0 };

/// Some packed panels, wherever they lie.
pub fn Panels(comptime kind: Kind, comptime count: usize) type {
    return struct {
        const Self = @This();
        const f = packed_weights.form(kind);
        pub const vectors = dot.per_panel * count;
        /// Vectors that are ready at the same time.
        pub const together = 1;
        /// Whether dots of one row take the codes as they are packed.
        pub const has_nibbles = dot.has_wide_codes and f.code_max == 15;

        panels: [count]packed_weights.Panel(kind),
        ahead: Ahead = .{},
        /// With `ahead`: the length of a panel, and what is read after each.
        bytes: usize = 0,
        next: [count][*]const u8 = undefined,

        pub inline fn prefetch(self: Self, b: usize) void {
            self.ask(b, self.ahead.second, 2);
            self.ask(b, self.ahead.first, 3);
        }

        inline fn ask(self: Self, b: usize, distance: usize, comptime locality: u2) void {
            if (distance == 0) return;
            const at = f.blockAt(b) + distance;
            inline for (self.panels, self.next) |panel, next| {
                const from = if (at < self.bytes) panel.base + at else next + (at - self.bytes);
                inline for (0..comptime (f.blockBytes() + 63) / 64) |line| @prefetch(from + line * 64, .{ .locality = locality });
            }
        }

        pub inline fn block(self: Self, b: usize, comptime part: usize) Block {
            const panel = self.panels[part / dot.per_panel];
            const v = part % dot.per_panel;
            return .{
                .all = panel.blockCodes(b, v),
                .pairs = if (has_nibbles) panel.blockPairs(b, v) else {},
                .scales = panel.blockScales(b, v),
            };
        }

        const Block = struct {
            all: [8]dot.U,
            pairs: if (has_nibbles) [4]dot.U else void,
            scales: packed_weights.Scales(f.groups()),

            pub inline fn codes(self: Block, comptime g: usize) Codes(g) {
                return .{ .all = self.all };
            }

            pub inline fn scale(self: Block, comptime g: usize, comptime _: usize) F {
                return self.scales.scale[g];
            }

            pub inline fn min(self: Block, comptime g: usize, comptime _: usize) F {
                return self.scales.min[g];
            }
        };

        fn Codes(comptime g: usize) type {
            return struct {
                all: [8]dot.U,
                pub inline fn at(self: @This(), comptime s: usize, comptime _: usize) dot.U {
                    return self.all[g * f.group / 4 + s];
                }
            };
        }
    };
}

/// A block of some neighbouring panels in the form of Scheme.ofMany.
pub fn UnpackedBlock(comptime f: Form, comptime panels: usize) type {
    return struct {
        const Self = @This();
        const scheme = Scheme.ofMany(f.code_max);
        const vectors = dot.per_panel * panels;

        all: [scheme.steps(32)][vectors]dot.U,
        scales: [f.groups()][vectors]F,
        minima: [if (f.has_min) f.groups() else 0][vectors]F,

        /// Fills in panel `i`.
        pub inline fn set(self: *Self, comptime i: usize, panel: anytype, b: usize) void {
            inline for (0..dot.per_panel) |part| {
                const v = i * dot.per_panel + part;
                inline for (panel.blockCodes(b, part), 0..) |four, s| {
                    inline for (scheme.weights(f.zero, four), 0..) |step, j| self.all[s * scheme.steps(4) + j][v] = step;
                }
                const scales = panel.blockScales(b, part);
                inline for (&self.scales, scales.scale) |*to, value| to[v] = value;
                if (f.has_min) inline for (&self.minima, scales.min) |*to, value| {
                    to[v] = value;
                };
            }
        }

        fn Codes(comptime g: usize) type {
            return struct {
                from: *const Self,
                pub inline fn at(self: @This(), comptime s: usize, comptime v: usize) dot.U {
                    return self.from.all[g * scheme.steps(f.group) + s][v];
                }
            };
        }

        pub inline fn codes(self: *const Self, comptime g: usize) Codes(g) {
            return .{ .from = self };
        }

        pub inline fn scale(self: *const Self, comptime g: usize, comptime v: usize) F {
            return self.scales[g][v];
        }

        pub inline fn min(self: *const Self, comptime g: usize, comptime v: usize) F {
            return self.minima[g][v];
        }
    };
}

pub fn Unpacked(comptime f: Form, comptime panels: usize) type {
    return struct {
        pub const vectors = dot.per_panel * panels;
        pub const together = vectors;
        pub const has_nibbles = false;

        blocks: [*]const UnpackedBlock(f, panels),

        pub inline fn prefetch(_: @This(), _: usize) void {}

        pub inline fn block(self: @This(), b: usize, comptime _: usize) *const UnpackedBlock(f, panels) {
            return &self.blocks[b];
        }
    };
}

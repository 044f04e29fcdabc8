//! Activation functions: vector forms over `elementwise.map` and their scalar f64 oracles.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const elementwise = @import("elementwise.zig");

const F = simd.F;
const splat = simd.splat;

inline fn siluOf(x: F) F {
    return x * simd.sigmoid(x);
}

/// 0.5x(1 + tanh(u)) = x * sigmoid(2u): the same function without the cancellation of 1 + tanh.
inline fn geluTanhOf(x: F) F {
    const inner = simd.fma(x * x * x, splat(0.044715), x);
    return x * simd.sigmoid(inner * splat(2.0 * 0.79788456080286535588));
}

inline fn geluErfOf(x: F) F {
    return x * simd.normalCdf(x);
}

inline fn quickGeluOf(x: F) F {
    return x * simd.sigmoid(x * splat(1.702));
}

inline fn reluOf(x: F) F {
    return @select(f32, x < simd.zero, simd.zero, x);
}

inline fn relu2Of(x: F) F {
    const y = reluOf(x);
    return y * y;
}

fn Unary(comptime f: fn (F) callconv(.@"inline") F) type {
    return struct {
        pub inline fn eval(_: @This(), x: F) F {
            return f(x);
        }
    };
}

/// The same bits as f(gate), stored, then mul with up.
fn Gated(comptime f: fn (F) callconv(.@"inline") F) type {
    return struct {
        pub inline fn eval(_: @This(), gate: F, up: F) F {
            return f(gate) * up;
        }
    };
}

/// silu(gate) * up.
pub const Swiglu = Gated(siluOf);

const Softcap = struct {
    cap: f32,
    pub inline fn eval(self: Softcap, x: F) F {
        return capScores(x, self.cap);
    }
};

/// cap * tanh(x / cap).
pub inline fn capScores(x: F, cap: f32) F {
    return splat(cap) * simd.tanh(x / splat(cap));
}

pub fn silu(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(siluOf){});
}

pub fn gelu_tanh(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(geluTanhOf){});
}

pub fn gelu_erf(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(geluErfOf){});
}

pub fn quick_gelu(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(quickGeluOf){});
}

pub fn sigmoid(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(simd.sigmoid){});
}

pub fn relu(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(reluOf){});
}

pub fn relu2(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(relu2Of){});
}

pub fn tanh(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(simd.tanh){});
}

pub fn softplus(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(simd.softplus){});
}

pub fn exp(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Unary(simd.exp){});
}

/// floats: cap.
pub fn softcap(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 1, Softcap{ .cap = cmd.floats[0] });
}

pub fn swiglu(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 2, Swiglu{});
}

pub fn geglu_tanh(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    elementwise.map(ctx, cmd, 2, Gated(geluTanhOf){});
}

/// Scalar oracles in f64, one per unary op.
pub const scalar = struct {
    pub fn silu(x: f64) f64 {
        return x / (1 + @exp(-x));
    }
    pub fn gelu_tanh(x: f64) f64 {
        return 0.5 * x * (1 + std.math.tanh(@sqrt(@as(f64, 2) / std.math.pi) * (x + 0.044715 * x * x * x)));
    }
    pub fn gelu_erf(x: f64) f64 {
        return 0.5 * x * (1 + erf(x / @sqrt(@as(f64, 2))));
    }
    pub fn quick_gelu(x: f64) f64 {
        return x / (1 + @exp(-1.702 * x));
    }
    pub fn sigmoid(x: f64) f64 {
        return 1 / (1 + @exp(-x));
    }
    pub fn relu(x: f64) f64 {
        return if (x < 0) 0 else x;
    }
    pub fn relu2(x: f64) f64 {
        return if (x < 0) 0 else x * x;
    }
    pub fn tanh(x: f64) f64 {
        return std.math.tanh(x);
    }
    pub fn softplus(x: f64) f64 {
        return if (x > 700) x else std.math.log1p(@exp(x));
    }
    pub fn exp(x: f64) f64 {
        return @exp(x);
    }
    /// erf by its Taylor series below 3 and the continued fraction of erfc above (Abramowitz & Stegun 7.1.6, 7.1.14).
    pub fn erf(x: f64) f64 {
        const a = @abs(x);
        if (x != x) return x;
        if (a > 6) return std.math.sign(x);
        if (a < 3) {
            var term = x;
            var sum = x;
            for (1..200) |n| {
                const k: f64 = @floatFromInt(n);
                term *= 2 * x * x / (2 * k + 1);
                sum += term;
            }
            return 2 / @sqrt(@as(f64, std.math.pi)) * @exp(-x * x) * sum;
        }
        var f: f64 = 0;
        var n: usize = 120;
        while (n > 0) : (n -= 1) f = @as(f64, @floatFromInt(n)) / 2 / (a + f);
        return std.math.sign(x) * (1 - @exp(-a * a) / ((a + f) * @sqrt(@as(f64, std.math.pi))));
    }
};

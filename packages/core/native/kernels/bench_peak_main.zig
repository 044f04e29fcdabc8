//! Prints the peaks of this level and number of threads as one line of JSON.

const std = @import("std");
const options = @import("options");
const bench_peak = @import("bench_peak.zig");

pub fn main() !void {
    const peaks = try bench_peak.measure(options.threads);
    var buffer: [300]u8 = undefined;
    const format = "{{\"int8_gops\":{d:.1},\"f32_gflops\":{d:.1},\"read_gb_per_s\":{d:.2}," ++
        "\"tiles_bf16_gops\":{d:.1},\"tiles_int8_gops\":{d:.1}}}\n";
    const all = .{ peaks.int8, peaks.f32, peaks.read, peaks.tiles_bf16, peaks.tiles_int8 };
    const text = try std.fmt.bufPrint(&buffer, format, all);
    if (std.os.linux.write(1, text.ptr, text.len) != text.len) return error.WriteFailed;
}

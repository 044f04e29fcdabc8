const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const units: number[] = [];

/**
 * Decodes bytes[start, end) as UTF-8; what is malformed becomes U+FFFD. Short strings of ASCII and two- or three-byte
 * sequences, which is nearly every token of a vocabulary, are decoded here at a tenth of a TextDecoder call's cost.
 */
export function decodeUtf8(bytes: Uint8Array, start: number, end: number): string {
  if (end - start > 48) return decoder.decode(bytes.subarray(start, end));
  units.length = 0;
  for (let i = start; i < end;) {
    const a = bytes[i];
    if (a < 0x80) {
      units.push(a);
      i += 1;
      continue;
    }
    const b = i + 1 < end ? bytes[i + 1] ^ 0x80 : 0xff;
    if (b > 0x3f) return decoder.decode(bytes.subarray(start, end));
    if (a >= 0xc2 && a < 0xe0) {
      units.push(((a & 0x1f) << 6) | b);
      i += 2;
      continue;
    }
    const c = i + 2 < end ? bytes[i + 2] ^ 0x80 : 0xff;
    const unit = ((a & 0x0f) << 12) | (b << 6) | c;
    if ((a & 0xf0) !== 0xe0 || c > 0x3f || unit < 0x800 || (unit >= 0xd800 && unit < 0xe000)) {
      return decoder.decode(bytes.subarray(start, end));
    }
    units.push(unit);
    i += 3;
  }
  return String.fromCharCode.apply(null, units);
}

/** Whether bytes[start, end) are UTF-8. */
export function isUtf8(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end;) {
    const a = bytes[i++];
    if (a < 0x80) continue;
    // Unicode 16, table 3-7: how many bytes follow, and the range of the first of them.
    const more = a >= 0xc2 && a < 0xe0 ? 1 : (a & 0xf0) === 0xe0 ? 2 : a >= 0xf0 && a < 0xf5 ? 3 : 4;
    if (more > end - i || more === 4) return false;
    const first = bytes[i];
    const low = a === 0xe0 ? 0xa0 : a === 0xf0 ? 0x90 : 0x80;
    const high = a === 0xed ? 0x9f : a === 0xf4 ? 0x8f : 0xbf;
    if (first < low || first > high) return false;
    for (let k = 1; k < more; k++) if ((bytes[i + k] & 0xc0) !== 0x80) return false;
    i += more;
  }
  return true;
}

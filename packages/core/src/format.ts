/** A number of bytes for people: `12.3 MiB`. */
export function formatMiB(bytes: number, digits = 1): string {
  return `${(bytes / 2 ** 20).toFixed(digits)} MiB`;
}

import type { Run } from "../../wire/image-format.ts";

/** In place of where a span's bytes lie in the image. */
export const ZERO = -1;

/** From and to, in bytes. */
type Range = readonly [from: number, to: number];

export interface Span {
  readonly start: number;
  readonly end: number;
  /** Where the span's bytes lie in the image; `ZERO`: the span is zero. */
  readonly source: number;
}

/** An image's runs, and what is zero between them. */
export function spansOf(runs: readonly Run[], heapBytes: number): Span[] {
  const spans: Span[] = [];
  let covered = 0;
  let source = 0;
  for (const [start, end] of runs) {
    if (start > covered) spans.push({ start: covered, end: start, source: ZERO });
    spans.push({ start, end, source });
    source += end - start;
    covered = end;
  }
  if (covered < heapBytes) spans.push({ start: covered, end: heapBytes, source: ZERO });
  return spans;
}

/** The spans' parts that lie in a range. Both are in order. */
export function intersection(spans: readonly Span[], ranges: readonly Range[]): Span[] {
  const parts: Span[] = [];
  let first = 0;
  for (const { start, end, source } of spans) {
    while (first < ranges.length && (ranges[first] as Range)[1] <= start) first++;
    for (let index = first; index < ranges.length; index++) {
      const [from, to] = ranges[index] as Range;
      if (from >= end) break;
      const at = Math.max(start, from);
      parts.push({ start: at, end: Math.min(end, to), source: source === ZERO ? ZERO : source + at - start });
    }
  }
  return parts;
}

/** What lies before, between and after ranges. */
export function complement(ranges: readonly Range[]): Range[] {
  const starts = [0, ...ranges.map(([, to]) => to)];
  const ends = [...ranges.map(([from]) => from), Number.POSITIVE_INFINITY];
  return starts.map((start, index): Range => [start, ends[index] as number]);
}

/** As few spans as say the same. */
export function joined(spans: readonly Span[]): Span[] {
  const result: Span[] = [];
  for (const span of spans) {
    const last = result.at(-1);
    const sourceAfter = last && (last.source === ZERO ? ZERO : last.source + last.end - last.start);
    if (last?.end === span.start && sourceAfter === span.source) {
      result[result.length - 1] = { ...last, end: span.end };
    } else {
      result.push(span);
    }
  }
  return result;
}

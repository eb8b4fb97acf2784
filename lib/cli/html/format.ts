import { formatNumber } from '../table.ts';

/** 512, 2k, 1M: tokens in powers of two, k being 1024. */
export function formatTokens(tokens: number): string {
  if (tokens >= 2 ** 20) return `${trim(tokens / 2 ** 20)}M`;
  return tokens >= 1024 ? `${trim(tokens / 1024)}k` : trim(tokens);
}

/** 0.02, 50, 1k, 20M, 3G: a tick of a decimal axis. */
export function formatTick(value: number): string {
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  let [rest, unit] = [value, 0];
  for (; rest >= 1000 && unit < units.length - 1; unit++) rest /= 1000;
  return `${trim(rest)}${units[unit]}`;
}

/** 512 KiB, 2 GiB: a tick of an axis of bytes. */
export function formatByteTick(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let [rest, unit] = [bytes, 0];
  for (; rest >= 1024 && unit < units.length - 1; unit++) rest /= 1024;
  return `${trim(rest)} ${units[unit]}`;
}

/** At most three digits, no zeros at the end. */
const trim = (value: number): string => String(Number(value.toPrecision(3)));

/** Three digits, and from 1000 on spaces between groups of three: 12 345. */
export function formatGrouped(value: number | null): string {
  return formatNumber(value).replace(/^\d{4,}$/, (digits) => digits.replace(/\B(?=(\d{3})+$)/g, '\u202f'));
}

// Memory of this process, as Linux tells it.
import { readFileSync, writeFileSync } from 'node:fs';

/** MiB that this process has had in memory at most (VmHWM) or has now (VmRSS). */
export function residentMiB(field) {
  const [, kib] = new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(kib) / 1024;
}

/** Lets VmHWM begin anew from VmRSS, which it returns; null where that cannot be had. */
export function forgetPeak() {
  if (process.platform !== 'linux') return null;
  writeFileSync('/proc/self/clear_refs', '5');
  return residentMiB('VmRSS');
}

import { presets, resolveGuest, type ResolvedGuest } from './guest-size.ts'
import type { Guest } from './machine-config.ts'
import type { FlyCompute } from './fly-toml-schema.ts'

/** §2.8: sizes with a GPU: eight performance CPUs and 32 GB. */
export const gpuSizes: Readonly<Record<string, string>> = {
  a10: 'a10',
  l40s: 'l40s',
  'a100-40gb': 'a100-pcie-40gb',
  'a100-80gb': 'a100-sxm4-80gb',
}
const gpuBase = { size: 'performance-8x', memoryMb: 32_768 }

/**
 * TOML-65: the guest that a `[[vm]]` asks for. Its explicit fields override its preset, zero and empty mean unsaid.
 * Throws the Fault of MCH-60 when no machine has that shape.
 */
export function guestOfCompute(
  compute: FlyCompute,
  hostDedicationId?: string,
): ResolvedGuest & Guest {
  const gpuKind = compute.gpu_kind || gpuSizes[compute.size ?? '']
  const usesGpu = gpuKind !== undefined && gpuKind !== ''
  const presetSize = usesGpu && !presets.has(compute.size ?? '') ? gpuBase.size : compute.size
  const memory = compute.memory_mb || compute.memory || (usesGpu ? gpuBase.memoryMb : 0)
  const dedication = compute.host_dedication_id || hostDedicationId
  const guest: Guest = {
    ...(compute.cpus ? { cpus: compute.cpus } : {}),
    ...(compute.cpu_kind ? { cpu_kind: compute.cpu_kind } : {}),
    ...(memory ? { memory_mb: memory } : {}),
    ...(compute.max_memory_mb ? { max_memory_mb: compute.max_memory_mb } : {}),
    ...(compute.gpus || usesGpu ? { gpus: compute.gpus || 1 } : {}),
    ...(gpuKind ? { gpu_kind: gpuKind } : {}),
    ...(compute.kernel_args?.length ? { kernel_args: compute.kernel_args } : {}),
    ...(dedication ? { host_dedication_id: dedication } : {}),
    ...(compute.persist_rootfs ? { persist_rootfs: compute.persist_rootfs } : {}),
  }
  return resolveGuest({ ...(presetSize ? { size: presetSize } : {}), guest })
}

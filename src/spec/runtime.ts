import { z } from 'zod'

/** How a machine can run. */
export const runtimeKinds = ['qemu', 'container'] as const
export const runtimeKindSchema = z.enum(runtimeKinds)
export type RuntimeKind = z.infer<typeof runtimeKindSchema>

/** `auto`: a VM where the processor's own virtualization really boots one, otherwise a container. */
export const runtimeWishSchema = z.enum(['auto', ...runtimeKinds])
export type RuntimeWish = z.infer<typeof runtimeWishSchema>

/** The key of a machine's metadata that chooses for this machine alone: metadata passes every client unchanged. */
export const runtimeMetadataKey = 'hangar_runtime'

/** What a machine runs in, or would at its next start: a field of ours beside those of MCH-10. */
export const machineRuntimeSchema = z.object({
  kind: runtimeKindSchema,
  /** `kvm` or `tcg` of a VM; null for a container, and before it is known. */
  accel: z.enum(['kvm', 'tcg']).nullable(),
  /** What separates it from its host and from the other machines. */
  isolation: z.enum(['vm', 'container', 'none']),
  /** For people. */
  note: z.string(),
})
export type MachineRuntime = z.infer<typeof machineRuntimeSchema>

/** `auto` when the machine's config says nothing: then its host decides. */
export function runtimeWishOf(config: {
  metadata?: Record<string, string> | null | undefined
}): RuntimeWish {
  const parsed = runtimeWishSchema.safeParse(config.metadata?.[runtimeMetadataKey])
  return parsed.success ? parsed.data : 'auto'
}

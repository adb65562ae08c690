import { accessSync, constants } from 'node:fs'
import { messageOf } from '#core/fault.ts'
import { run } from '#sys/process.ts'
import { architecture } from './qemu-args.ts'

const trialTimeoutMs = 5_000

/**
 * Why KVM cannot make the processor of a VM here; undefined when it can. Costs a quarter of a second and needs no guest,
 * so a machine without KVM, or with one that does not work, is told from others before a kernel is fetched. That a guest
 * really boots is another question: `probeVm`.
 */
export async function whyNoKvm(): Promise<string | undefined> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    const { program, machine, cpu } = architecture()
    const bare = ['-nodefaults', '-no-user-config', '-display', 'none', '-S', '-monitor', 'stdio']
    const args = ['-M', machine, '-accel', 'kvm', '-cpu', cpu.kvm, ...bare]
    const { code, stderr } = await run(program, args, {
      input: 'quit\n',
      timeoutMs: trialTimeoutMs,
    })
    if (code === 0) return undefined
    return stderr.trim().split('\n')[0] || `${program} ended with code ${code}`
  } catch (error) {
    return messageOf(error)
  }
}

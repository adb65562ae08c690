import type { Command } from '../command.ts'
import { machineActs } from './machine-act.ts'
import { machineChanges } from './machine-change.ts'
import { machineExec } from './machine-exec.ts'
import { machineList, machineStatus } from './machine-list.ts'
import { machineCreate, machineRun } from './machine-run.ts'

export const machine: Command = {
  name: 'machine',
  aliases: ['machines', 'm'],
  summary: 'Manage machines',
  commands: [
    machineRun,
    machineCreate,
    machineList,
    machineStatus,
    machineExec,
    ...machineActs,
    ...machineChanges,
  ],
}

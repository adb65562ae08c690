import { resolve } from 'node:path'
import { createLogger } from '#sys/log.ts'
import { driverSuite } from '../driver-suite.ts'
import { openQemuDriver } from './qemu-driver.ts'

const kernelCacheDir = resolve(import.meta.dirname, '../../../../build/kernel')
const log = createLogger('test')
const hostId = `test-${process.pid}`
driverSuite({
  name: 'qemu',
  open: (dir, { host = '', onApi }) =>
    openQemuDriver({ dir, hostId: hostId + host, kernelCacheDir, log, onApi }),
})

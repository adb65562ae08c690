import { createLogger } from '#sys/log.ts'
import { driverSuite } from '../driver-suite.ts'
import { openQemuDriver } from './qemu-driver.ts'
import { kernelCacheDir } from './test-support.ts'

const log = createLogger('test')
const hostId = `test-${process.pid}`
driverSuite({
  name: 'qemu',
  open: (dir, { host = '', onApi }) =>
    openQemuDriver({ dir, hostId: hostId + host, kernelCacheDir, log, onApi }),
})

import { createLogger } from '#sys/log.ts'
import { openContainerDriver } from './container-driver.ts'
import { driverSuite } from './driver-suite.ts'

const hostId = `test-${process.pid}`
driverSuite({
  name: 'container',
  open: (dir) => openContainerDriver({ dir, hostId, log: createLogger('test') }),
})

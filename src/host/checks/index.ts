export { listenPort, planChecks, type PlannedCheck } from './check-plan.ts'
export { Health, type HealthOptions } from './health.ts'
